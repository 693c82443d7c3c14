"""A CLIP tokenizer for a small vocabulary."""

from collections.abc import Iterable
from string import ascii_lowercase
from typing import cast

from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import CLIPTokenizer


def word_tokenizer(words: Iterable[str], max_tokens: int) -> CLIPTokenizer:
    """Return a CLIP tokenizer whose byte pairs make each of the words, of the letters a to z, one token."""
    vocab = {symbol: i for i, symbol in enumerate([*ascii_lowercase, *(f"{c}</w>" for c in ascii_lowercase)])}
    merges: list[tuple[str, str]] = []
    for word in sorted(set(words)):
        tokens = Tokenizer(BPE(vocab, merges, end_of_word_suffix="</w>")).encode(word).tokens
        while len(tokens) > 1:
            merges.append((tokens[0], tokens[1]))
            tokens = [tokens[0] + tokens[1], *tokens[2:]]
            vocab[tokens[0]] = len(vocab)
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=cast(list[str], merges), model_max_length=max_tokens)
