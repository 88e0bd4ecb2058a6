"""Each promise in short: what tests/promises/run.py --full tries with its full counts."""

import sys
from itertools import product

import pytest
from promises import (
    exact_resume,
    extreme_numbers,
    long_load,
    odd_moments,
    same_again,
    strange_texts,
    supply_chain,
    whole_checkpoints,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and files")


def kept(*trials):
    """Assert that each was tried and that nothing failed."""
    assert all(trial.count for trial in trials)
    assert [failure for trial in trials for failure in trial.failures] == []


@posix
@pytest.mark.slow
@pytest.mark.parametrize("case", exact_resume.SHORT, ids=str)
def test_a_run_that_is_stopped_in_every_way_ends_as_the_one_that_never_stopped(case):
    kept(exact_resume.exact_resume([case]))


@posix
@pytest.mark.slow
def test_a_checkpoint_is_whole_after_kill_9_and_nothing_else_is_left():
    kept(*whole_checkpoints.killing(6))


@posix
@pytest.mark.slow
def test_bad_places_are_refused_in_one_line_and_the_old_file_is_intact():
    kept(whole_checkpoints.bad_places())


def test_strange_texts_are_read_as_they_are():
    kept(strange_texts.as_they_are(["both forms", "escapes"]))


def test_what_is_no_text_is_refused_in_one_line():
    kept(
        strange_texts.broken(
            ["half a pair in UTF-16", "half a pair at the end", "surrogates in UTF-7"]
        )
    )


@posix
def test_odd_files_are_skipped_or_refused_and_changing_ones_do_no_harm():
    kept(strange_texts.odd_files(), strange_texts.changing_files())


@posix
@pytest.mark.slow
def test_no_escape_sequence_reaches_a_terminal():
    kept(strange_texts.terminals(few=True))


@posix
@pytest.mark.slow
def test_archives_that_unfold_without_end_are_refused_in_little_memory():
    kept(strange_texts.bombs(1 << 27))


def test_a_rate_of_100_ends_with_a_line_and_good_weights():
    kept(extreme_numbers.diverging(extreme_numbers.SHORT))


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_anywhere():
    kept(same_again.anywhere(["hash seed 1"]))


def test_watching_changes_nothing():
    kept(same_again.watched(same_again.WATCHING[-1:]))


@posix
def test_a_long_run_and_a_long_sample_hold_their_memory():
    kept(long_load.flat_training(3_000), long_load.flat_sampling(100_000))


@posix
@pytest.mark.slow
def test_runs_leave_nothing_open_and_do_not_share_a_file():
    kept(long_load.nothing_left(20), long_load.two_at_once(1))


def test_damaged_texts_are_read_as_python_decodes_them_or_refused():
    kept(odd_moments.mutated_texts(300))


@posix
@pytest.mark.slow
def test_signals_and_changing_files_at_any_moment_leave_whole_files():
    kept(odd_moments.signals(2), odd_moments.changing(2), odd_moments.terminals(2))


@posix
@pytest.mark.slow
def test_disks_that_fill_leave_whole_files():
    trial = odd_moments.filling_disks([4096])
    if not trial.count:
        pytest.skip("only Linux's root can make a small disk")
    kept(trial)


@pytest.mark.slow
def test_the_wheel_and_the_source_distribution_hold_what_they_should():
    kept(supply_chain.wheel(), supply_chain.sdist())


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [("numpy>=2.0", "numpy==2.0.*"), ("tqdm>=4.66", "tqdm==4.66.*"), ("x>=1.2.3", "x==1.2.3")],
)
def test_the_lowest_version_of_a_requirement_is_found(requirement, expected):
    assert supply_chain.lowest(requirement) == expected


def test_the_full_form_covers_every_cell_and_optimizer_with_and_without_lines_and_workers():
    assert {tuple(case) for case in exact_resume.ALL} == set(
        product(exact_resume.CELLS, exact_resume.OPTIMIZERS, (False, True), (1, 2))
    )


def test_escape_sequences_are_found_and_colours_are_allowed():
    assert strange_texts.leaks("\x1b[31mred\x1b[0m, 10\r\n\x1b[A\x1b[K") == []
    for raw in ("\x1b]0;t\x07", "\x1b[31337m", "\x9b1m", "\u202e", "\x1b[2J", "\x08"):
        assert strange_texts.leaks(f"a{raw}b")


@pytest.mark.parametrize("keep", ["--out", "--resume"])
def test_a_disk_filled_to_the_last_byte_is_refused_before_the_first_step(keep):
    with whole_checkpoints.small_disk(1 << 18) as disk:
        if disk is None:
            pytest.skip("only Linux's root can make a small disk")
        whole_checkpoints.fill(disk)
        from charrnn.checkpoint.atomic_write import check_writable, exclusive_lock
        from charrnn.errors import CheckpointError

        with pytest.raises(CheckpointError, match="No space left on device; check its folder"):
            check_writable(disk / "m.npz", overwrite=keep == "--resume")
        with exclusive_lock(disk / "m.npz"):
            pass
        assert whole_checkpoints.leftovers(disk) == []
