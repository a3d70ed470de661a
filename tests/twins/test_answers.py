"""Remembered answers: found, fresh, alive, bounded."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgserve.fast import _answers, _answers_py

IMAGE, TENANT, ELSEWHERE = 8, 40, 9
WEBP, AVIF = b"image/webp", b"image/avif,image/webp"


@pytest.fixture
def words(tmp_path: Path) -> Iterator[memoryview]:
    """The words of a real map that could be shared."""
    path = tmp_path / "slots.map"
    path.write_bytes(bytes(64 * 8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        view = memoryview(mapped).cast("Q")
        yield view
        view.release()


@pytest.fixture
def memory(answers: ModuleType, words: memoryview) -> Iterator[Any]:
    memory = answers.Answers(160_000, words)
    yield memory
    memory.close()


def answer(module: ModuleType, body: bytes = b"body", **changes: Any) -> Any:
    known: dict[str, Any] = {
        "before_date": b"HTTP/1.1 200 OK\r\nDate: ",
        "after_date": b"\r\n\r\n",
        "status": 200,
        "expires_s": 100.0,
        "stamp": 7,
        "image_slot": IMAGE,
        "tenant_slot": TENANT,
        "template": "template",
    }
    return module.Answer(body=body, **(known | changes))


def test_an_answer_is_found_again(answers: ModuleType, memory: Any) -> None:
    """The same key and an Accept of the same class find the very object, others find nothing."""
    kept = answer(answers)
    assert True is memory.put(b"Ga/x", WEBP, 1, kept, memory.epoch)
    assert kept is memory.get(b"Ga/x", WEBP, 99.0)
    assert None is memory.get(b"Ga/y", WEBP, 99.0)
    assert None is memory.get(b"Ga/x", AVIF, 99.0)
    assert (b"HTTP/1.1 200 OK\r\nDate: ", b"\r\n\r\n", b"body", 200, "template") == (
        kept.before_date, kept.after_date, kept.body, kept.status, kept.template,
    )  # fmt: skip
    assert {"hits": 1, "misses": 2, "expired": 0, "invalidated": 0, "evicted": 0, "refused": 0} == memory.counters()


def test_an_accept_of_the_same_class_shares_the_answer(answers: ModuleType, memory: Any) -> None:
    """Once its class is known, another spelling of Accept finds what was put for the first."""
    memory.put(b"Ga/x", WEBP, 1, answer(answers), 0)
    memory.put(b"Ga/y", b"image/webp,*/*", 1, answer(answers), 0)
    assert None is not memory.get(b"Ga/x", b"image/webp,*/*", 0.0)


def test_classes_have_their_own_answers(answers: ModuleType, memory: Any) -> None:
    """Two classes of one key do not mix."""
    webp, avif = answer(answers, b"webp"), answer(answers, b"avif")
    memory.put(b"Ga/x", WEBP, 1, webp, 0)
    memory.put(b"Ga/x", AVIF, 2, avif, 0)
    assert (webp, avif) == (memory.get(b"Ga/x", WEBP, 0.0), memory.get(b"Ga/x", AVIF, 0.0))


def test_an_answer_that_does_not_vary_is_for_every_accept(answers: ModuleType, memory: Any) -> None:
    """Known, unknown or missing Accept: one answer."""
    kept = answer(answers)
    memory.put(b"Ga/other", WEBP, 1, answer(answers), 0)
    memory.put(b"Ga/x", b"", answers.EVERY_ACCEPT, kept, 0)
    assert [kept] * 3 == [memory.get(b"Ga/x", accept, 0.0) for accept in (WEBP, AVIF, b"")]


def test_an_expired_answer_is_dropped(answers: ModuleType, memory: Any) -> None:
    """At its time it is gone, and its memory with it."""
    memory.put(b"Ga/x", WEBP, 1, answer(answers), 0)
    assert None is not memory.get(b"Ga/x", WEBP, 99.999)
    assert None is memory.get(b"Ga/x", WEBP, 100.0)
    assert (0, 0, 1) == (len(memory), memory.used_bytes, memory.counters()["expired"])


@pytest.mark.parametrize("slot", [IMAGE, TENANT])
def test_a_raised_slot_kills_the_answer(answers: ModuleType, memory: Any, words: memoryview, slot: int) -> None:
    """A slot up to the stamp is fine, one above it is death; a neighbour's slot does not count."""
    memory.put(b"Ga/x", WEBP, 1, answer(answers, stamp=7), 0)
    words[ELSEWHERE] = 2**63
    words[slot] = 7
    assert None is not memory.get(b"Ga/x", WEBP, 0.0)
    words[slot] = 8
    assert None is memory.get(b"Ga/x", WEBP, 0.0)
    assert (0, 0, 1) == (len(memory), memory.used_bytes, memory.counters()["invalidated"])


def test_the_whole_range_of_sequence_numbers_counts(answers: ModuleType, memory: Any, words: memoryview) -> None:
    """Numbers above 2^63 compare as unsigned."""
    memory.put(b"Ga/x", WEBP, 1, answer(answers, stamp=2**64 - 2), 0)
    words[IMAGE] = 2**64 - 2
    assert None is not memory.get(b"Ga/x", WEBP, 0.0)
    words[IMAGE] = 2**64 - 1
    assert None is memory.get(b"Ga/x", WEBP, 0.0)


def test_the_least_recently_used_goes_first(answers: ModuleType, memory: Any) -> None:
    """Memory is bounded; what was read lately stays."""
    body = bytes(9_000)
    for number in range(16):
        memory.put(b"Ga/%d" % number, b"", 0, answer(answers, body), 0)
    assert None is not memory.get(b"Ga/0", b"", 0.0)
    memory.put(b"Ga/new", b"", 0, answer(answers, body), 0)
    kept = {number for number in range(16) if memory.get(b"Ga/%d" % number, b"", 0.0) is not None}
    assert {0, *range(2, 16)} == kept
    assert memory.used_bytes <= memory.max_bytes
    assert 1 == memory.counters()["evicted"]


def test_the_bound_counts_every_byte_and_an_overhead(answers: ModuleType, memory: Any) -> None:
    """Key, head and body are counted, and something for the entry itself."""
    kept = answer(answers)
    memory.put(b"Ga/x", WEBP, 1, kept, 0)
    expected = len(b"Ga/x") + len(kept.before_date) + len(kept.after_date) + len(kept.body) + answers.OVERHEAD_BYTES
    assert expected == memory.used_bytes
    memory.put(b"Ga/x", WEBP, 1, kept, 0)
    assert (1, expected) == (len(memory), memory.used_bytes)


def test_a_large_answer_is_refused(answers: ModuleType, memory: Any) -> None:
    """No answer takes more than a sixteenth of the memory."""
    assert 10_000 == memory.max_entry_bytes
    assert False is memory.put(b"Ga/x", b"", 0, answer(answers, bytes(10_000)), 0)
    assert (0, 1) == (len(memory), memory.counters()["refused"])


def test_what_was_begun_before_a_clear_is_refused(answers: ModuleType, memory: Any) -> None:
    """An answer of the old configuration can't come in late."""
    epoch = memory.epoch
    memory.put(b"Ga/x", WEBP, 1, answer(answers), epoch)
    memory.clear()
    assert (0, 0, None) == (len(memory), memory.used_bytes, memory.get(b"Ga/x", WEBP, 0.0))
    assert False is memory.put(b"Ga/x", WEBP, 1, answer(answers), epoch)
    assert True is memory.put(b"Ga/x", WEBP, 2, answer(answers), memory.epoch)


def test_an_accept_has_one_class(answers: ModuleType, memory: Any) -> None:
    """A value that was taught another class is refused: one of the two teachers is wrong."""
    assert True is memory.put(b"Ga/x", WEBP, 1, answer(answers), 0)
    assert False is memory.put(b"Ga/y", WEBP, 2, answer(answers), 0)
    assert None is memory.get(b"Ga/y", WEBP, 0.0)


def test_a_very_long_accept_is_not_learnt(answers: ModuleType, memory: Any) -> None:
    """Its answer is refused too, for nobody would find it."""
    long = b"x" * (answers.MAX_ACCEPT_BYTES + 1)
    assert False is memory.put(b"Ga/x", long, 1, answer(answers), 0)
    assert True is memory.put(b"Ga/x", long[1:], 1, answer(answers), 0)


def test_the_learnt_table_is_bounded_and_keeps_what_is_used(answers: ModuleType, memory: Any) -> None:
    """A flood of odd Accepts pushes out odd ones, never one in use."""
    kept = answer(answers, b"")
    memory.put(b"Ga/x", WEBP, 1, kept, 0)
    for number in range(3 * answers.LEARNT_MAX):
        memory.put(b"Ga/odd", b"odd/%d" % number, 2, answer(answers, b""), 0)
        assert kept is memory.get(b"Ga/x", WEBP, 0.0)
    assert None is memory.get(b"Ga/odd", b"odd/0", 0.0)


def test_forget_drops_every_class(answers: ModuleType, memory: Any) -> None:
    """All answers to one request go, others stay."""
    memory.put(b"Ga/x", WEBP, 1, answer(answers), 0)
    memory.put(b"Ga/x", b"", 0, answer(answers), 0)
    memory.put(b"Ga/y", WEBP, 1, answer(answers), 0)
    assert (2, 0) == (memory.forget(b"Ga/x"), memory.forget(b"Ga/x"))
    assert 1 == len(memory)


def test_mistakes_are_errors(answers: ModuleType, memory: Any) -> None:
    """A slot outside the map, or a class that can't be, is no answer to remember."""
    for image_slot, tenant_slot in ((64, TENANT), (-1, TENANT), (IMAGE, 64)):
        with pytest.raises(ValueError, match="no such slot"):
            memory.put(b"Ga/x", WEBP, 1, answer(answers, image_slot=image_slot, tenant_slot=tenant_slot), 0)
    for wrong in (-1, answers.MAX_CLASSES):
        with pytest.raises(ValueError, match="an accept class is 0 to 31"):
            memory.put(b"Ga/x", WEBP, wrong, answer(answers), 0)


def test_after_close_the_map_is_free(answers: ModuleType) -> None:
    """A closed memory remembers nothing and holds the map no more; closing twice is fine."""
    words = memoryview(bytearray(64 * 8)).cast("Q")
    memory = answers.Answers(160_000, words)
    memory.put(b"Ga/x", b"", 0, answer(answers), 0)
    memory.close()
    memory.close()
    words.release()
    assert None is memory.get(b"Ga/x", b"", 0.0)
    assert False is memory.put(b"Ga/x", b"", 0, answer(answers), memory.epoch)


def test_a_large_memory_goes_without_a_trace() -> None:
    """Many entries are let go at once without recursion."""
    words = memoryview(bytearray(64 * 8)).cast("Q")
    memory = _answers.Answers(1 << 40, words)
    kept = answer(_answers)
    for number in range(100_000):
        memory.put(b"Ga/%d" % number, b"", 0, kept, 0)
    assert 100_000 == len(memory)
    del memory
    words.release()


KEYS = st.sampled_from([b"Ga/x", b"Ga/y", b"Ha/x", b"Gb/x"])
ACCEPTS = st.sampled_from([b"", WEBP, AVIF, b"a/b", b"c/d"])
STEPS = st.one_of(
    st.tuples(st.just("get"), KEYS, ACCEPTS, st.integers(0, 12)),
    st.tuples(
        st.just("put"), KEYS, ACCEPTS, st.integers(0, 3), st.integers(0, 900), st.integers(1, 12), st.integers(0, 4)
    ),
    st.tuples(st.just("raise"), st.sampled_from([1, 2, 3]), st.integers(0, 4)),
    st.tuples(st.just("forget"), KEYS),
    st.tuples(st.just("clear")),
)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(STEPS, max_size=60))
def test_the_twins_agree(steps: list[tuple[Any, ...]]) -> None:
    """Any order of calls leaves both with the same answers, sizes and counters."""
    words = memoryview(bytearray(4 * 8)).cast("Q")
    both: list[tuple[ModuleType, Any]] = [(m, m.Answers(24_000, words)) for m in (_answers, _answers_py)]
    for step in steps:
        seen = []
        for module, memory in both:
            if step[0] == "get":
                found = memory.get(*step[1:])
                seen.append(None if found is None else found.template)
            elif step[0] == "put":
                _, key, accept, accept_class, size, expires, stamp = step
                kept = answer(
                    module, bytes(size), expires_s=expires, stamp=stamp, image_slot=1, tenant_slot=size % 2 + 2,
                    template=step,
                )  # fmt: skip
                seen.append(memory.put(key, accept, accept_class, kept, 0))
            elif step[0] == "raise":
                words[step[1]] = step[2]
            elif step[0] == "forget":
                seen.append(memory.forget(step[1]))
            else:
                memory.clear()
            seen.append((len(memory), memory.used_bytes, memory.epoch, memory.counters()))
        assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
