"""Candidates of a masked language model, against what transformers itself says of one text at a time."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from student_trainer.augment.masked_lm import MaskedLM
from student_trainer.augment.words import Slot
from student_trainer.config import AugmentSettings, ConfigError

TEXT = "The screenplay is unfathomably funny, and Kidman's film (a thriller) is hilarious."
MANY_PIECES = "unfathomably"


def load(source: Path | str, **more: object) -> MaskedLM:
    return MaskedLM.load(AugmentSettings(data="t", output="o", masked_lm=str(source), **more))  # type: ignore[arg-type]


def best(folder: Path, masked: str) -> list[str]:
    """The whole vocabulary in order of the logits at the only mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(masked, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForMaskedLM.from_pretrained(folder).eval()(**tokens).logits[0]
    (place,) = (tokens["input_ids"][0] == tokenizer.mask_token_id).nonzero().tolist()
    ranked = tokenizer.convert_ids_to_tokens(logits[place[0]].argsort(descending=True))
    assert isinstance(ranked, list)
    return ranked


def by_word(text: str, slots: list[Slot]) -> dict[str, tuple[str, ...]]:
    return {text[slot.start : slot.end]: slot.candidates for slot in slots}


def test_candidates_are_the_models_best_words(masked_lm: Path) -> None:
    (slots,) = load(masked_lm)([TEXT])
    found = by_word(TEXT, slots)
    assert list(found) == ["screenplay", MANY_PIECES, "funny", "film", "thriller", "hilarious"]
    assert len(AutoTokenizer.from_pretrained(masked_lm).tokenize(MANY_PIECES)) > 1
    for word, candidates in found.items():
        ranked = best(masked_lm, TEXT.replace(word, "[MASK]"))
        words = [one for one in ranked if one.isalpha() and one != word]  # no ##piece, [SEP], [unused3], 7
        assert candidates == tuple(words[:15])


def test_never_itself(masked_lm: Path) -> None:
    """Also where the model holds the word itself most likely, and that in whatever case."""
    network = BertForMaskedLM.from_pretrained(masked_lm)
    tokenizer = AutoTokenizer.from_pretrained(masked_lm)
    with torch.no_grad():
        network.cls.predictions.bias[tokenizer.convert_tokens_to_ids(["film", "##ing", "[SEP]", "."])] += 1e4
    propose = MaskedLM(network.train(False), tokenizer, 4, 8, 128)
    found = by_word("FILM and Boy", propose(["FILM and Boy"])[0])
    assert "film" not in found["FILM"]
    assert found["Boy"][0] == "film"
    assert all(len(candidates) == 4 for candidates in found.values())
    assert all(one.isalpha() for candidates in found.values() for one in candidates)


def test_batches_do_not_change_candidates(masked_lm: Path) -> None:
    texts = [TEXT, "", "of the", "A short film", "cat " * 40, TEXT.upper()]
    together = load(masked_lm, batch_size=7)(texts)
    apart = load(masked_lm, batch_size=1)
    assert together == [apart([text])[0] for text in texts]
    assert [len(slots) for slots in together] == [6, 0, 0, 2, 40, 6]  # SHORT is no stop word
    assert apart([]) == []


def test_words_behind_the_longest_input_stay(masked_lm: Path) -> None:
    text = "cat " * 200
    assert len(load(masked_lm, max_length=12)([text])[0]) == 10  # beside [CLS] and [SEP]
    assert len(load(masked_lm, max_length=500)([text])[0]) == 62  # the model has 64 positions
    assert load(masked_lm, max_length=4)(["a " + MANY_PIECES]) == [[]]  # not masked in part


def test_a_vocabulary_whose_words_begin_with_a_space(tmp_path: Path) -> None:
    """RoBERTa's: `Ġfilm` is a word, `film` a piece."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = [*map(chr, range(ord("a"), ord("z") + 1)), "Ġ", "."]
    merges = [("f", "i"), ("l", "m"), ("fi", "lm"), ("Ġ", "film"), ("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    vocabulary = [*special, *letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({one: place for place, one in enumerate(vocabulary)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, **dict(zip(names, special, strict=True))
    ).save_pretrained(tmp_path)  # that sets no limit
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    RobertaForMaskedLM(
        RobertaConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)
    ).save_pretrained(tmp_path)
    found = by_word("cat fog cats", load(tmp_path)(["cat fog cats"])[0])
    assert found == {"cat": ("film",), "fog": found["fog"], "cats": found["cats"]}
    assert {frozenset(found[word]) for word in ("fog", "cats")} == {frozenset({"film", "cat"})}
    long = "cat " * 100  # 64 positions begin behind the padding's
    assert len(load(tmp_path)([long])[0]) == 62


def spoil_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def pickle_weights(folder: Path) -> None:
    network = BertForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")


def take_the_head(folder: Path) -> None:
    BertForSequenceClassification.from_pretrained(folder).save_pretrained(folder)


def take_the_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)


@pytest.mark.parametrize("harm", [spoil_weights, pickle_weights, take_the_head, take_the_tokenizer])
def test_a_model_that_is_none(harm: object, masked_lm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(masked_lm, tmp_path / "model"))
    harm(folder)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="masked_lm: ") as raised:
        load(folder)
    assert str(raised.value).startswith("masked_lm: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["./no/such/folder", "no-such-name", "no/such-name"])
def test_no_model(source: str) -> None:
    with pytest.raises(ConfigError, match=f"masked_lm: '{source}' cannot be loaded; give a folder"):
        load(source)


def test_another_models_fingerprint(masked_lm: Path, tmp_path: Path) -> None:
    network = BertForMaskedLM.from_pretrained(masked_lm)
    same = Path(shutil.copytree(masked_lm, tmp_path / "same"))
    other = Path(shutil.copytree(masked_lm, tmp_path / "other"))
    with torch.no_grad():
        network.cls.predictions.bias[7] += 1
    network.save_pretrained(other)
    assert load(masked_lm).fingerprint == load(same).fingerprint != load(other).fingerprint
