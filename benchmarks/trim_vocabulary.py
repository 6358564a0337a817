"""A checkpoint with only those tokens that a data set's rows have: the same student, less to update.

    python benchmarks/trim_vocabulary.py runs/checkpoints/minilm-6 my-data runs/checkpoints/minilm-6-mine

Of MiniLM's 3-layer student, two thirds of all weights are the vectors of 30,522 tokens; on a CPU their
update takes a fifth of a step, and nothing ever changes those that do not occur (without weight decay).
Texts of the data are read as before, token by token, which is checked; other texts may be read otherwise.
"""

import json
import shutil
from argparse import ArgumentParser
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

WORDS = "embeddings.word_embeddings.weight"
COPIED = ("tokenizer_config.json", "special_tokens_map.json")


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a folder of the BERT family, with WordPiece")
    parser.add_argument("data", type=Path, help="a folder of JSON lines with text, and text_pair")
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args()
    texts = sorted({text for path in sorted(chosen.data.glob("*.jsonl")) for text in texts_of(path)})
    kept = trim(chosen.checkpoint, texts, chosen.output)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (chosen.checkpoint, chosen.output))
    assert all(before.tokenize(text) == after.tokenize(text) for text in texts)
    print(f"{chosen.output}: {kept} tokens")


def texts_of(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row[name] for row in rows for name in ("text", "text_pair") if row.get(name)]


def trim(checkpoint: Path, texts: list[str], output: Path) -> int:
    """Writes the smaller checkpoint; returns how many tokens it has.

    The longest match that WordPiece finds in the whole vocabulary is kept, so it is found here too.
    """
    output.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    used = {index for ids in tokenizer(texts)["input_ids"] for index in ids} | set(tokenizer.all_special_ids)
    old = sorted(used)
    numbers = dict(zip(tokenizer.convert_ids_to_tokens(old), range(len(old)), strict=True))
    written = json.loads((checkpoint / "tokenizer.json").read_text())
    written["model"]["vocab"] = numbers
    for token in written["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for name, special in written["post_processor"]["special_tokens"].items():
        special["ids"] = [numbers[name]]
    (output / "tokenizer.json").write_text(json.dumps(written))
    (output / "vocab.txt").write_text("\n".join(numbers) + "\n")
    for name in COPIED:
        shutil.copy(checkpoint / name, output / name)
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"vocab_size": len(old), "pad_token_id": numbers[tokenizer.pad_token]}
    (output / "config.json").write_text(json.dumps(config, indent=2))
    weights = load_file(checkpoint / "model.safetensors")
    (name,) = [name for name in weights if name.endswith(WORDS)]
    weights[name] = weights[name][old].contiguous()
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
    return len(old)


if __name__ == "__main__":
    main()
