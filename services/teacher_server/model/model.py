"""One classifier, loaded and ready: tokenise, run, describe."""

from collections.abc import Sequence
from pathlib import Path

import torch

from teacher_api.messages import Description, Instance, Outputs, Want
from teacher_server.model.compiled import Compile, compiling, prepare
from teacher_server.model.encoding import Encoded, Encoder
from teacher_server.model.identity import fingerprint_of
from teacher_server.model.int8 import quantise
from teacher_server.model.loading import AskedDType, Checkpoint, load_checkpoint
from teacher_server.model.outputs import cut
from teacher_server.model.prepacked import prepack
from teacher_server.model.runtimes import Keep, Packed, choose_runtime

CPU_TOKENS = 256  # of one thread in a batch: some ten sentences
ACCELERATOR_TOKENS = 8192


class Model:
    """A fine-tuned classifier. `encode` may be called from any thread, `run` from `lanes` at a time.

    Attributes:
        description: who it is and what it can return.
        lanes: how many batches are best run at a time.
        best_tokens: of one batch. More make a CPU hardly faster, and everyone who asks beside them wait.
    """

    description: Description
    lanes: int
    best_tokens: int

    def __init__(
        self, checkpoint: Checkpoint, *, name: str, max_length: int, compiled: Compile = "off"
    ) -> None:
        dtype, self._compiled = checkpoint.dtype, compiled
        self._encoder = Encoder(checkpoint, max_length)
        on_cpu = checkpoint.network.device.type == "cpu"
        self._threads = torch.get_num_threads() if on_cpu else None
        # A CUDA graph's answers last until its next run; compiled code for a CPU knows one number of threads.
        single = compiled == "reduce-overhead" or (on_cpu and compiled != "off")
        self.lanes = 1 if single or self._threads == 1 else 2
        tokens = CPU_TOKENS * self._share if self._threads else ACCELERATOR_TOKENS
        self.best_tokens = max(max_length, tokens)
        # Before the weights are fused and rounded for speed.
        fingerprint = fingerprint_of(checkpoint, dtype, max_length)
        parameters = checkpoint.network.num_parameters()
        self._forward = choose_runtime(checkpoint.network)
        if dtype == "int8":
            quantise(checkpoint.network.base_model)
        elif isinstance(self._forward, Packed):
            prepack(self._forward.encoder, checkpoint.network)
        if isinstance(self._forward, Packed) and on_cpu:
            self._forward.encoder.script()
        prepare(self._forward, checkpoint.network, compiled)
        self.description = Description(
            name=name,
            fingerprint=fingerprint,
            labels=checkpoint.labels,
            vocabulary_hash=self._encoder.vocabulary_hash(),
            max_length=max_length,
            layers=checkpoint.config.num_hidden_layers,
            hidden_size=checkpoint.config.hidden_size,
            intermediate_size=checkpoint.intermediate_size,
            parameters=parameters,
            dtype=dtype,
            runtime=self._forward.name + "+compiled" * self._forward.compiled,
            attention_heads=self._forward.heads,
        )

    @classmethod
    def load(
        cls,
        source: str,
        *,
        device: str = "auto",
        dtype: AskedDType = "float32",
        max_length: int = 128,
        name: str | None = None,
        threads: int | None = None,
        compiled: Compile = "off",
    ) -> "Model":
        """Any Hugging Face sequence classifier, from safetensors; code beside the weights is never run.

        Args:
            source: a local folder or a hub name.
            device: "auto" (an accelerator if there is one), or a torch device such as "cpu" or "cuda:1".
            dtype: in which the model computes: "auto" takes bfloat16 where the processor has it; "int8" has
                8-bit linears on a CPU, and float32 beside.
            max_length: in tokens, special tokens included; longer inputs are truncated.
            name: what people call it; by default the folder's own name, or the hub name.
            threads: of this process's CPU computations; by default torch's choice.
            compiled: by which mode of torch.compile, "reduce-overhead" (CUDA graphs) on CUDA alone; it is
                `warm_up` that compiles.

        Raises:
            ModelError: the checkpoint cannot be served, or not so compiled; max_length is more than its
                positions.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        checkpoint = load_checkpoint(source, device, dtype)
        folder = Path(source)
        shown = name or (folder.resolve().name if folder.is_dir() else source)
        return cls(checkpoint, name=shown, max_length=max_length, compiled=compiled)

    @property
    def _share(self) -> int:
        """Threads of one lane on a CPU."""
        return -(-(self._threads or 1) // self.lanes)

    @property
    def padding_free(self) -> bool:
        """Whether a batch costs only its real tokens, whatever their lengths."""
        return self._forward.name != "padded"

    def encode(self, instances: Sequence[Instance]) -> list[Encoded]:
        """Tokenises, truncating at `description.max_length`.

        Raises:
            InvalidRequestError: token ids that the model does not have, or too many of them.
        """
        return self._encoder(instances)

    def run(self, encoded: Sequence[Encoded], wants: Sequence[Want], *, alone: bool = True) -> list[Outputs]:
        """One forward over all of these; each gets what it wants, in the order given.

        Args:
            encoded: at least one instance.
            wants: of each instance; layers between 0 and `description.layers`, of attentions from 1.
            alone: all of the CPU's threads may be taken; else the share of one lane.
        """
        if self._threads:  # holds for the thread that sets it
            torch.set_num_threads(self._threads if alone else self._share)
        order = sorted(range(len(encoded)), key=lambda row: encoded[row].tokens)
        with torch.inference_mode():
            states = self._forward(
                [encoded[row] for row in order],
                keep=_kept(wants),
                attentions=any(want.attentions for want in wants),
            )
            outputs = cut(states, [wants[row] for row in order])
        placed = dict(zip(order, outputs, strict=True))
        return [placed[row] for row in range(len(encoded))]

    def warm_up(self) -> None:
        """Runs one text alone, two, and a batch of the best size: buffers and kernels are set up once.

        So is compiled code: there is one for a single row, and one for several.

        Raises:
            ModelError: the network cannot be compiled.
        """
        (text,) = self._encoder([Instance("warm " * self.description.max_length)])
        with torch.inference_mode(), compiling(self._compiled):
            for count in (1, 2, max(1, self.best_tokens // text.tokens)):
                self._forward([text] * count, keep="nothing")


def _kept(wants: Sequence[Want]) -> Keep:
    hidden = [want for want in wants if want.layers]
    if not hidden:
        return "nothing"
    return "first" if all(want.pooling == "cls" for want in hidden) else "all"
