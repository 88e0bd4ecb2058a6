"""Draw a text from a known second-order Markov chain, and compute the best possible loss on it.

Each character depends only on the two before it, so the entropy rate can be computed exactly. It is
a floor: no model's expected loss, in nats per character, can be lower, and that of a model that has
learned the chain comes close. A model that sees only the last character cannot get below
`order_one_rate()`, which is higher. `python corpora/markov.py` writes corpora/markov.txt to
standard output; `--entropy` prints the rate instead.
"""

import argparse
import random
import sys
from bisect import bisect
from itertools import accumulate
from math import log

ALPHABET = "aeinst \n"
SEED, LENGTH = 2015, 200_000
START = "e\n"  # stands before the text, so that it begins with a word
# TABLE[x] has a group of digits for each y of ALPHABET, in its order. Digit k of the group is the
# weight of ALPHABET[k] after x and y. The groups for two spaces or newlines in a row are never
# used, because neither follows the other.
TABLE = {
    "a": "00111131 30321161 10019191 12110000 26900331 21200091 04129400 21242100",
    "e": "00021691 10161191 10029900 16603191 91101000 69610061 11402000 11191200",
    "i": "11029991 00169661 00022210 19200010 96600191 99910161 01012100 01400000",
    "n": "03061110 31066661 00199931 12100110 12600331 16600091 44191400 11291100",
    "s": "10016931 00166110 00126261 19600110 92900161 91200010 42914400 29114400",
    "t": "00012910 00026291 00121661 92201091 12201300 16903010 11004200 40021400",
    " ": "22225900 22125200 10119900 51210000 51200000 29201100 19119200 42121100",
    "\n": "00015900 10155100 00015500 12501000 92900000 12900000 90104100 01020100",
}
WEIGHTS = {
    x + y: [int(d) for d in row]
    for x in ALPHABET
    for y, row in zip(ALPHABET, TABLE[x].split(), strict=True)
}


def generate(length: int = LENGTH, seed: int = SEED) -> str:
    """Return `length` characters.

    Every version of Python gives the same: `Random.random` never changes its stream for a seed.
    """
    uniform = random.Random(seed).random
    sums = {pair: list(accumulate(row)) for pair, row in WEIGHTS.items()}
    pair, text = START, []
    for _ in range(length):
        text.append(ALPHABET[bisect(sums[pair], uniform() * sums[pair][-1])])
        pair = pair[1] + text[-1]
    return "".join(text)


def stationary(steps: int = 1000) -> dict[str, float]:
    """Return the frequency of each pair of characters in the long run, by power iteration."""
    share = dict.fromkeys(WEIGHTS, 1 / len(WEIGHTS))
    for _ in range(steps):
        after = dict.fromkeys(WEIGHTS, 0.0)
        for pair, row in WEIGHTS.items():
            for k, char in enumerate(ALPHABET):
                after[pair[1] + char] += share[pair] * row[k] / sum(row)
        share = after
    return share


def entropy(weights: list[float]) -> float:
    """Return the entropy, in nats, of the distribution that is proportional to `weights`."""
    total = sum(weights)
    return -sum(w / total * log(w / total) for w in weights if w)


def entropy_rate() -> float:
    """Return the mean entropy of the next character after a pair, in nats per character."""
    return sum(
        share * entropy([float(w) for w in WEIGHTS[pair]]) for pair, share in stationary().items()
    )


def order_one_rate() -> float:
    """Return H(last, next) − H(last), the best loss if a model sees only the last character."""
    share = stationary()
    last = [sum(share[x + y] for y in ALPHABET) for x in ALPHABET]
    return entropy(list(share.values())) - entropy(last)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Draw a text from a known second-order Markov chain."
    )
    parser.add_argument(
        "--entropy", action="store_true", help="print the entropy rate (nats per character) instead"
    )
    output = f"{entropy_rate():.6f}\n" if parser.parse_args().entropy else generate()
    sys.stdout.buffer.write(output.encode("ascii"))
