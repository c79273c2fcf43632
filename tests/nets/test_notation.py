"""Reading the notation: what it means, and what each mistake is told, with the carets where they belong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import UsageError
from pellucid.nets.grammar import complain
from pellucid.nets.notation import MOST_DEPTH, MOST_LAYERS, Group, Item, count, read
from pellucid.nets.specs import ELSEWHERE, LAYERS, Dropout, FullyConnected
from pellucid.nets.specs_conv import Conv
from pellucid.nets.specs_pool import Pool


def words(group: Group) -> list[object]:
    """The tree as nested lists of layer texts."""
    inner: list[object] = [words(node) if isinstance(node, Group) else node.layer.text for node in group.nodes]
    return [*inner, f"*{group.times}{'?' * group.optional}"] if group.times > 1 or group.optional else inner


def refusal(text: str) -> tuple[str, str, str]:
    """The sentence, the line shown, and what of it stands above the carets."""
    with pytest.raises(UsageError) as caught:
        read(text)
    sentence, *lines = str(caught.value).split("\n")
    assert len(lines) == 2
    line, carets = lines
    at = carets.index("^")
    assert set(carets.strip()) == {"^"}
    return sentence, line.strip(), line[at : at + carets.count("^")]


def test_the_tree() -> None:
    net = read("INPUT(3,32,32) -> [[CONV(32)]*2 -> POOL?]*2 -> [FC(512)]*1 -> FC(10)")
    assert net.image == (3, 32, 32)
    assert words(net.layers) == [
        [[[["CONV(32)"], "*2"], ["POOL", "*1?"]], "*2"],
        [["FC(512)"]],
        "FC(10)",
    ]
    assert count(net.layers) == 2 * (2 + 1) + 1 + 1


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("conv(8, kernel=5, stride=2, padding=SAME, activation=Tanh)", Conv(8, 5, 2, "same", activation="tanh")),
        (
            "CONV(8,padding=2,dilation=3,groups=4,norm=batch,bias=false)",
            Conv(8, 3, 1, 2, 3, 4, norm="batch", bias=False),
        ),
        ("CONV(filters=8, activation=leaky-relu)", Conv(8, activation="leaky-relu")),
        ("POOL", Pool()),
        ("POOL()", Pool()),
        ("POOL(avg)", Pool(kind="avg")),
        ("POOL(3, avg, stride=2, padding=1)", Pool(3, "avg", 2, 1)),
        ("POOL(avg, 3)", Pool(3, "avg")),
        ("POOL(global, avg)", Pool("global", "avg")),
        ("GLOBALPOOL(avg)", Pool("global", "avg")),
        ("GLOBALPOOL(max)", Pool("global", "max")),
        ("GLOBALPOOL", Pool("global")),
        ("FC(classes)", FullyConnected("classes")),
        ("FC(84, activation=tanh)", FullyConnected(84, "tanh")),
        ("DROPOUT(.25)", Dropout(0.25)),
        ("DROPOUT", Dropout(0.5)),
    ],
)
def test_layers(text: str, layer: object) -> None:
    (node,) = read(f"INPUT -> {text}").layers.nodes
    assert isinstance(node, Item)
    assert node.layer == layer
    (again,) = read(f"INPUT -> {node.layer.text}").layers.nodes
    assert isinstance(again, Item)
    assert again.layer == layer


def test_spaces_lines_and_typographic_marks_mean_the_same() -> None:
    plain = words(read("INPUT->[CONV(8)->POOL]*2->FC(10)").layers)
    assert words(read("  INPUT\n  → [ CONV ( 8 ) -> POOL ] × 2\n  -> FC(10)\n").layers) == plain


def outcome(text: str) -> bool:
    """Whether `text` is read within the limits, or refused with carets; anything else that happens escapes."""
    try:
        net = read(text)
    except UsageError as error:
        return "^" in str(error)
    return 1 <= count(net.layers) <= MOST_LAYERS


MISTAKES = [
    ("", "there are no layers; write, say, INPUT -> CONV(32)", ""),
    ("INPUT", "no layer follows INPUT", ""),
    ("INPUT ->", "nothing follows the last '->'; write a layer after it or take it out", "->"),
    ("CONV(32) -> FC(10)", "begins with INPUT, not 'CONV'; write INPUT -> in front of it", "CONV"),
    ("INPUT -> KONV(32) -> FC(10)", "column 10 of the network: 'KONV' is no layer: did you mean 'conv'?", "KONV"),
    ("INPUT -> RELU", "an activation is an option of the layer before it: CONV(32, activation=relu)", "RELU"),
    ("INPUT -> DENSE(10)", "'DENSE' is no layer: write FC(512)", "DENSE"),
    ("INPUT -> INPUT", "INPUT stands once, at the beginning", "INPUT"),
    ("INPUT -> [[CONV]*N -> POOL?]*M -> [FC]*K", "CONV does not say its filters; write, say, CONV(32)", "CONV"),
    ("INPUT -> [CONV(3)]*N", "a whole number from 1 to 1,000, not 'N'; write, say, *2", "N"),
    ("INPUT -> CONV(3)*0", "a whole number from 1 to 1,000, not '0'", "0"),
    ("INPUT -> CONV(3)*-1", "a whole number from 1 to 1,000, not '-1'", "-1"),
    ("INPUT -> CONV(3)*2.5", "a whole number from 1 to 1,000, not '2.5'", "2.5"),
    ("INPUT -> CONV(3)*2*3", "a second '*' on one item; take it out", "*"),
    ("INPUT -> POOL??", "a second '?' on one item", "?"),
    ("INPUT -> CONV(3)*", "not 'the end'", ""),
    ("INPUT -> FC(10)?", "only what has a window (CONV, POOL) can be too large for a map; take the '?' out", "?"),
    ("INPUT -> GLOBALPOOL?", "only what has a window", "?"),
    ("INPUT*3 -> CONV(3)", "INPUT is neither repeated nor optional; take the '*' out", "*"),
    (
        "INPUT(3,32) -> CONV(3)",
        "INPUT takes channels, height and width, say INPUT(3,32,32), but 2 numbers stand",
        "(3,32)",
    ),
    ("INPUT(1) -> CONV(3)", "but 1 number stand", "(1)"),
    ("INPUT(3,a,32) -> CONV(3)", "say INPUT(3,32,32), not 'a'", "a"),
    ("INPUT(3,0,32) -> CONV(3)", "say INPUT(3,32,32), not '0'", "0"),
    ("INPUT -> CONV(32, kernel=0)", "kernel of CONV is a whole number from 1 to 10,000, not '0'", "0"),
    ("INPUT -> CONV(32, kernel=2.5)", "kernel of CONV is a whole number from 1 to 10,000, not '2.5'", "2.5"),
    ("INPUT -> CONV(-3)", "filters of CONV is a whole number from 1 to 1,000,000, not '-3'", "-3"),
    ("INPUT -> CONV(99999999999)", "filters of CONV is a whole number", "99999999999"),
    ("INPUT -> CONV(32, kernl=3)", "CONV has no option 'kernl': did you mean 'kernel'?", "kernl"),
    ("INPUT -> CONV(32, kernel=3x3)", "expected ',' or ')' before 'x3'; each option has one value, say kernel=3", "x3"),
    ("INPUT -> CONV(32, kernel=(3,3))", "expected a number or a word, found '('", "("),
    ("INPUT -> CONV(32, activation=softmax)", "the network ends in logits and the loss takes their softmax", "softmax"),
    ("INPUT -> CONV(32, activation=rulu)", "none, not 'rulu'; did you mean 'relu'?", "rulu"),
    ("INPUT -> CONV(32, padding=sam)", "same | valid, not 'sam'; did you mean 'same'?", "sam"),
    ("INPUT -> CONV(3, 5)", "CONV has no place for '5': write which option it is, say kernel=5", "5"),
    ("INPUT -> CONV(kernel=3, 5)", "'5' has no name but follows one that has; write it first", "5"),
    ("INPUT -> CONV(3, filters=4)", "filters of CONV is given twice", "filters"),
    ("INPUT -> CONV(5, groups=2)", "groups=2 does not divide its 5 filters; write groups=1", "CONV(5, groups=2)"),
    ("INPUT -> POOL(3, padding=2)", "more than half of its window of 3; write at most padding=1", "POOL(3, padding=2)"),
    ("INPUT -> POOL(global, stride=2)", "a global pool has neither stride nor padding", "POOL(global, stride=2)"),
    ("INPUT -> POOL(foo)", "size of POOL is a whole number from 1 to 10,000 or global, not 'foo'", "foo"),
    ("INPUT -> DROPOUT(1)", "a number from 0 up to, but not including, 1, not '1'", "1"),
    ("INPUT -> FLATTEN(3)", "FLATTEN has no place for '3': take it out", "3"),
    ("INPUT -> BATCHNORM(eps=3)", "BATCHNORM has no option 'eps': it has none", "eps"),
    ("INPUT -> [CONV(32) -> FC(10)", "this '[' is never closed; write the ']' that belongs to it", "["),
    ("INPUT -> CONV(32)] -> FC(10)", "']' closes nothing; take it out", "]"),
    ("INPUT -> CONV(32 -> FC(10)", "this '(' is never closed; write the ')' that belongs to it", "("),
    ("INPUT -> []", "these brackets are empty", "[]"),
    ("INPUT -> CONV(3) POOL", "expected '->' before 'POOL'", "POOL"),
    ("INPUT -> CONV(3) -> -> FC(1)", "a layer is missing before this '->'", "->"),
    ("INPUT -> 3", "expected a layer, found '3'", "3"),
    ("INPUT => CONV(3)", "'>' means nothing here: layers are joined by '->'", ">"),
    ("INPUT -> CONV{3}", "'{' means nothing here: groups are written [ ]", "{"),
    ("INPUT -> CONV(3) $", "'$' means nothing here: take it out", "$"),
    ("INPUT -> [[CONV(3)]*100]*100", "that makes 10,000 layers, and 1,000 is the most; repeat less often", "100"),
]


@pytest.mark.parametrize(("text", "said", "marked"), MISTAKES, ids=[text or "empty" for text, _, _ in MISTAKES])
def test_mistakes(text: str, said: str, marked: str) -> None:
    sentence, line, above = refusal(text)
    assert said in sentence
    assert line == text.strip()
    assert above == marked


def test_full_width_marks_are_named_and_the_carets_count_columns() -> None:
    with pytest.raises(UsageError) as caught:
        read("INPUT -> CONV（32）")
    assert str(caught.value) == (
        "column 14 of the network: '（' means nothing here: write the plain '('\n"
        "  INPUT -> CONV（32）\n"
        "               ^^"
    )


def test_the_line_is_named_where_there_are_several() -> None:
    sentence, line, above = refusal("INPUT\n -> CONV(3)\n -> POL\n -> FC(10)")
    assert sentence == "line 3, column 5 of the network: 'POL' is no layer: did you mean 'pool'?"
    assert (line, above) == ("-> POL", "POL")


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "INPUT -> " + " -> ".join(["CONV(3)"] * 40) + " -> POL -> " + " -> ".join(["CONV(3)"] * 40)
    sentence, line, above = refusal(text)
    assert f"column {text.index('POL') + 1} " in sentence
    assert above == "POL"
    assert line.startswith("…")
    assert line.endswith("…")
    assert len(line) <= 102


def test_limits() -> None:
    assert count(read(f"INPUT -> [CONV(1)]*{MOST_LAYERS}").layers) == MOST_LAYERS
    many = "INPUT" + " -> POOL" * (MOST_LAYERS + 1)
    assert "that makes 1,001 layers" in refusal(many)[0]
    deep = "[" * MOST_DEPTH + "CONV(3)" + "]" * MOST_DEPTH
    assert count(read(f"INPUT -> {deep}").layers) == 1
    assert f"brackets nest deeper than {MOST_DEPTH}" in refusal(f"INPUT -> [{deep}]")[0]
    assert "nest deeper" in refusal("INPUT -> " + "[" * 100_000)[0]
    assert "a whole number" in refusal("INPUT -> CONV(" + "9" * 10_000 + ")")[0]


def test_every_word_from_elsewhere_is_no_layer_of_ours() -> None:
    assert not set(ELSEWHERE) & set(LAYERS)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text(alphabet="INPUTCOVL()[]->*?,=0123456789. k\n（", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert outcome(text)


def test_a_damaged_network_is_read_or_refused() -> None:
    text = "INPUT(3,32,32) -> [[CONV(32, kernel=5, activation=leaky-relu)]*2 -> POOL?]*2 -> [FC(512)]*1 -> FC(10)"
    rng = random.Random(0)
    for _ in range(1000):
        at, length = rng.randrange(len(text)), rng.randrange(4)
        damaged = text[:at] + rng.choice(["", "*", "->", "(", "]", "x", "-", "5", "=", "?"]) + text[at + length :]
        assert outcome(damaged)


def test_complain_marks_at_least_one_column() -> None:
    assert complain("abc", 1, 1, "wrong") == "wrong\n  abc\n   ^"
