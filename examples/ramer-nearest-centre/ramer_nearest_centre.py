"A method of your own: the class whose centre is nearest in what a clip has."

import torch
from ramer.methods.base import Method, asked
from ramer.methods.encoders import vectors


class NearestCentre(Method):
    "The nearest class centre, by the features that are available."

    selection = "none"

    def fit(self, train, dev):
        known, classes = train.labelled(), range(len(train.classes))
        x = vectors(known).items()
        self.centres = {
            m: torch.stack([v[known.labels == c].mean(0) for c in classes]) for m, v in x
        }

    def predict_proba(self, clips, mask=None):
        clips, mask = asked(clips, mask, {m: v.shape[1] for m, v in self.centres.items()})
        far = torch.zeros(len(clips), 1)
        for column, (m, x) in enumerate(vectors(clips.hide(mask)).items()):
            far = far + torch.cdist(x, self.centres[m]) * torch.from_numpy(mask[:, [column]])
        return torch.softmax(-far.double(), 1).numpy()

    def state(self):
        return self.centres, {}

    def restore(self, tensors, facts, folder):
        self.centres = tensors
