"""qzoo config, and the defaults it keeps."""

from __future__ import annotations

import tomllib

import pytest


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    monkeypatch.setenv("QZOO_CONFIG", str(file))
    return file


def planned(qzoo, *words):
    return qzoo("build", "resnet20", "--dry-run", "--json", *words).json


def test_a_default_is_used_where_the_option_is_not_given(qzoo, config):
    assert qzoo("config", "build.calib-samples", "32").code == 0
    assert tomllib.loads(config.read_text()) == {"build": {"calib-samples": 32}}
    assert planned(qzoo)["calibration_samples"] == 32


def test_an_option_on_the_command_line_wins(qzoo):
    qzoo("config", "build.calib-samples", "32")
    assert planned(qzoo, "--calib-samples", "40")["calibration_samples"] == 40


def test_an_option_that_can_be_repeated_takes_several_values(qzoo):
    qzoo("config", "build.target", "onnxruntime", "openvino")
    assert [one["target"].split("/")[0] for one in planned(qzoo)["builds"]] == ["onnxruntime", "openvino"]


def test_a_value_is_shown_changed_and_removed(qzoo):
    assert qzoo("config", "build.seed").out == "not set\n"
    qzoo("config", "build.seed", "3")
    qzoo("config", "build.seed", "4")
    assert qzoo("config", "build.seed").out == "4\n"
    assert qzoo("config", "--json").json["defaults"] == {"build": {"seed": 4}}
    assert qzoo("config", "build.seed", "--unset").code == 0
    assert qzoo("config", "build.seed").out == "not set\n"


def test_comments_in_the_file_are_kept(qzoo, config):
    config.write_text("# mine\n[build]\nseed = 1  # for the paper\n")
    qzoo("config", "build.calib-samples", "16")
    assert "# mine" in config.read_text()
    assert "# for the paper" in config.read_text()
    assert tomllib.loads(config.read_text())["build"] == {"seed": 1, "calib-samples": 16}


def test_a_misspelt_key_names_the_nearest_and_changes_nothing(qzoo, config):
    ended = qzoo("config", "build.tagret", "openvino")
    assert ended.code == 2
    assert "did you mean build.target" in ended.err
    assert not config.exists()


def test_a_value_of_the_wrong_kind_is_refused_and_changes_nothing(qzoo, config):
    ended = qzoo("config", "build.calib-samples", "many")
    assert ended.code == 2
    assert "'many' is not a valid integer" in ended.err
    assert not config.exists()


def test_several_values_for_a_single_option_are_refused(qzoo):
    ended = qzoo("config", "build.seed", "1", "2")
    assert (ended.code, "takes one value, got 2" in ended.err) == (2, True)


def test_a_verb_of_a_group_has_its_own_table(qzoo, config):
    assert qzoo("config", "store.ls.json", "true").code == 0
    assert tomllib.loads(config.read_text()) == {"store": {"ls": {"json": True}}}
    assert qzoo("config").out.splitlines()[1] == "  store.ls.json = True"
    assert qzoo("config", "store.ls.json").out == "True\n"
    assert qzoo("store", "ls").json["stored"] == []
    assert qzoo("config", "store.ls.json", "--unset").code == 0
    assert "nothing is stored" in qzoo("store", "ls").out


def test_a_misspelt_key_in_a_groups_table_is_named(qzoo, config):
    config.write_text("[store.ls]\njsn = true\n")
    ended = qzoo("store", "ls")
    assert ended.code == 2
    assert f"{config}: there is no option store.ls.jsn; did you mean store.ls.json" in ended.err


def test_unset_needs_a_key_and_takes_no_value(qzoo, config):
    assert qzoo("config", "--unset").code == 2
    qzoo("config", "build.seed", "3")
    assert qzoo("config", "build.seed", "4", "--unset").code == 2
    assert tomllib.loads(config.read_text()) == {"build": {"seed": 3}}


def test_removing_what_is_not_set_says_so(qzoo):
    ended = qzoo("config", "build.seed", "--unset")
    assert (ended.code, "build.seed is not set" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[build\n", "can't be read"),
        ("seed = 1\n", "outside a table"),
        ("[build]\nsed = 1\n", "did you mean build.seed"),
        ("[biuld]\nseed = 1\n", "did you mean [build]"),
    ],
)
def test_a_broken_file_is_named_by_every_verb_that_reads_it(qzoo, config, text, words):
    config.write_text(text)
    ended = qzoo("build", "resnet20", "--dry-run")
    assert ended.code == 2
    assert str(config) in ended.err
    assert words in ended.err


def test_without_a_file_its_place_is_shown(qzoo, config):
    assert qzoo("config").out == f"{config} (not there yet)\n"
