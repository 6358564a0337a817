"""Augmented data (§3.2, after TinyBERT): variants of every training row, in which words are replaced.

    rows -> words that may go, each with its best candidates -> variants -> train.jsonl

The candidates of a word come from a masked language model that reads the sentence without it
(`masked_lm`), or are its neighbours in word vectors (`word_vectors`).
"""

from student_trainer.augment.command import Outcome, augment

__all__ = ["Outcome", "augment"]
