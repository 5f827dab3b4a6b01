"""Real ratings: MovieLens-100K, skipped where it cannot be had."""

import pytest

from cli.program import as_json
from ratings_data import NotToBeHad, movielens_100k


@pytest.fixture(scope="session")
def movielens():
    try:
        return movielens_100k()
    except NotToBeHad as error:
        pytest.skip(str(error))


def test_complete_the_raw_file(dmf_program, movielens):
    """80/20 with no option but the split: better than row and column offsets alone (0.94)."""
    report = as_json(dmf_program("complete", movielens, "--holdout", 0.2, "--json"))
    assert report["shape"] == [943, 1682] and report["heldout"]["count"] == 20_000
    assert report["heldout"]["rmse"] < 0.93


def test_reproduce_small(dmf_program, movielens, tmp_path):
    report = as_json(dmf_program("reproduce", "movielens", "--small", "--data", movielens, "--json"))
    table, claims = {row["network"]: row for row in report["table"]}, {row["what"]: row for row in report["claims"]}
    assert all(table[name]["best error"] < 0.5 for name in ("original", "compressed"))  # from 7 at the start
    assert {row["verdict"] for row in claims.values()} == {"same in kind"}
    assert (tmp_path / "movielens.png").exists()


def test_what_is_known_of_users_and_films_helps(dmf_program, movielens):
    """The files as they are, on the same held-out ratings."""
    features = "--row-features", movielens_100k("user"), "--column-features", movielens_100k("item")
    plain, told = (
        as_json(dmf_program("complete", movielens, "--holdout", 0.2, "--json", *more))["heldout"]["rmse"]
        for more in ((), features)
    )
    assert told < plain


def test_when_ratings_were_given_helps(dmf_program, movielens):
    """Without the name of a column no time is read; with it users drift, and the same held-out ratings are predicted better."""
    plain, timed = (
        as_json(dmf_program("complete", movielens, "--holdout", 0.2, "--json", *more))
        for more in ((), ("--time", "timestamp:float"))
    )
    assert plain["drift"] is None and list(timed["drift"]) == ["rows"]
    assert timed["heldout"]["rmse"] < plain["heldout"]["rmse"] - 0.005
