"""The Open Inference Protocol's questions and answers, the same for both faces; see its inference.proto."""

from teacher_server.open_inference.served import OpenInference

__all__ = ["OpenInference"]
