"""Tokenise and run one Hugging Face classifier; knows no network.

`Model.load` reads a checkpoint, `encode` tokenises, `run` answers many questions in one forward.
"""

from teacher_server.model.encoding import Encoded
from teacher_server.model.loading import ModelError
from teacher_server.model.model import Model

__all__ = ["Encoded", "Model", "ModelError"]
