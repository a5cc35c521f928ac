"""Data files: formats, labels, reads in models, and files that mean harm."""

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
import scipy.sparse

from bilevelpy.sema.bind import bind

ARCS = 'set ARC = {"a", "b", "c"}; param cost[ARC] in [0, inf], demand[ARC];'


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def model(program, tmp_path):
    """A program whose text is a file in the folder of the test."""

    def make(text):
        return program(text, str(tmp_path / "model.blv"))

    return make


def test_npz(bound, array, tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "d.npz", X=X, y=np.array([1, 2, 3], dtype=np.int32), more=1)
    data = bound("dim n, p; param X[n, p], y[n];", tmp_path / "d.npz")
    np.testing.assert_array_equal(array(data, "X"), X)
    assert data.origins["y"] == 'd.npz["y"]'
    np.savez_compressed(tmp_path / "f.npz", X=np.asfortranarray(X), y=[1, 2, 3])
    data = bound("dim n, p; param X[n, p], y[n];", files=[(None, str(tmp_path / "f.npz"))])
    np.testing.assert_array_equal(array(data, "X"), X)


def test_npz_with_the_parts_of_a_sparse_matrix(bound, tmp_path):
    m = scipy.sparse.csr_matrix([[0, 1.0], [2, 0], [0, 0]])
    np.savez(
        tmp_path / "d.npz", X_data=m.data, X_indices=m.indices, X_indptr=m.indptr, X_shape=m.shape
    )
    data = bound("dim n, p; param X[n, p];", tmp_path / "d.npz")
    assert (data.arrays["X"] != m).nnz == 0


def test_broken_parts_of_a_sparse_matrix(problems, tmp_path):
    np.savez(tmp_path / "d.npz", X_data=[1.0], X_indices=[7], X_indptr=[0, 1], X_shape=[1, 2])
    (problem,) = problems("dim n, p; param X[n, p];", tmp_path / "d.npz")
    assert problem.code == "BLV0411"
    assert "fit together" in problem.message


def test_npy_csv_and_json_by_name(bound, array, tmp_path):
    np.save(tmp_path / "X.npy", np.eye(2))
    write(tmp_path / "m.csv", "1,2\n3,4\n5,6\n")
    write(tmp_path / "v.csv", "value\n7\n8\n9\n")
    write(tmp_path / "k.json", "[1, 2]")
    data = bound(
        "dim n, p, q; param X[n, n], M[q, p], v[q], k[n];",
        tmp_path / "X.npy",
        files=[("M", tmp_path / "m.csv"), ("v", tmp_path / "v.csv"), ("k", tmp_path / "k.json")],
    )
    np.testing.assert_array_equal(array(data, "M"), [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(array(data, "v"), [7, 8, 9])
    np.testing.assert_array_equal(array(data, "k"), [1, 2])


def test_csv_with_a_label_column(bound, array, tmp_path):
    path = write(tmp_path / "d.csv", "ARC,cost,demand,other\nc,3,30,x\na,1,10,y\nb,2,20,z\n")
    data = bound(ARCS, path)
    np.testing.assert_array_equal(array(data, "cost"), [1, 2, 3])
    np.testing.assert_array_equal(array(data, "demand"), [10, 20, 30])


def test_csv_defines_an_unbound_set(bound, array, tmp_path):
    path = write(tmp_path / "d.csv", "\ufeffFIRM, c\nnorth, 1\nsouth, 2\n")
    data = bound("set FIRM; param c[FIRM];", path)
    assert next(iter(data.labels.values())) == ("north", "south")


def test_csv_without_labels_takes_the_rows_in_order(bound, array, tmp_path):
    path = write(tmp_path / "d.csv", "x,y\n1,4\n2,5\n")
    data = bound("dim n; param x[n], y[n];", path)
    np.testing.assert_array_equal(array(data, "y"), [4, 5])


def test_csv_long_table_over_two_sets(bound, array, tmp_path):
    text = "set OD; set ARC; param inc[OD, ARC], demand[OD], rate;"
    rows = ["OD,ARC,inc,demand,rate"]
    rows += [
        f"{k},{a},{10 * i + j},{i},7"
        for i, k in enumerate("xy")
        for j, a in enumerate(["p", "q", "r"])
    ]
    rows[1], rows[4] = rows[4], rows[1]
    data = bound(text, write(tmp_path / "d.csv", "\n".join(rows)))
    axes = {a.name: a for a in data.sizes}
    order = [data.labels[axes["OD"]].index(k) for k in "xy"]
    assert array(data, "inc").shape == (2, 3)
    np.testing.assert_array_equal(array(data, "demand")[order], [0, 1])
    assert array(data, "rate") == 7


CROSS = 'set A = {"a", "b", "c"}; set T = 1..2; dim n, p; param M[A, T], C[A, A], X[n, p], d[A];'


def test_csv_cross_table_is_aligned_by_its_labels(bound, array, tmp_path):
    write(tmp_path / "m.csv", "A,2,1\nc,32,31\na,12,11\nb,22,21\n")
    write(tmp_path / "c.csv", ",c,a,b\na,3,1,2\nb,6,4,5\nc,9,7,8\n")
    write(tmp_path / "x.csv", ",0,1\n0,5,6\n1,7,8\n2,9,10\n")
    write(tmp_path / "d.csv", ",d\nb,2\nc,3\na,1\n")
    data = bound(CROSS, files=[(k, tmp_path / f"{k.lower()}.csv") for k in ("M", "C", "X", "d")])
    np.testing.assert_array_equal(array(data, "M"), [[11, 12], [21, 22], [31, 32]])
    np.testing.assert_array_equal(array(data, "C"), np.arange(1, 10).reshape(3, 3))
    np.testing.assert_array_equal(array(data, "X"), np.arange(5, 11).reshape(3, 2))
    np.testing.assert_array_equal(array(data, "d"), [1, 2, 3])


def test_csv_cross_table_with_mistakes(problems, tmp_path):
    text = 'set A = {"a", "b"}; param C[A, A];'
    for content, code, words in (
        (",a,b\na,1,2\nd,3,4\n", "BLV0410", '"d"'),
        (",a,b\na,1,2\n", "BLV0409", '"b"'),
        (",a,b\na,1,x\nb,3,4\n", "BLV0407", "row 2 of column b"),
        (",a,b\na,1,2\na,3,4\n", "BLV0423", '"a"'),
    ):
        found = problems(text, files=[("C", write(tmp_path / "c.csv", content))])
        assert [p.code for p in found] == [code]
        assert words in found[0].message + str(found[0].primary) + str(found[0].notes)


def test_csv_pairs(bound, array, tmp_path):
    text = "set NODE; set ARC within NODE * NODE; param cost[ARC];"
    data = bound(text, write(tmp_path / "d.csv", "NODE,NODE,cost\na,b,1\nb,c,2\n"))
    axes = {a.name: a for a in data.sizes}
    assert data.labels[axes["ARC"]] == (("a", "b"), ("b", "c"))
    np.testing.assert_array_equal(array(data, "cost"), [1, 2])


def test_csv_ranges_and_whole_numbers(bound, array, tmp_path):
    data = bound("set T = 1..3; param d[T];", write(tmp_path / "d.csv", "T,d\n3,30\n1,10\n2,20\n"))
    np.testing.assert_array_equal(array(data, "d"), [10, 20, 30])


def test_a_message_names_the_rows_of_the_table(problems, tmp_path):
    path = write(tmp_path / "costs.csv", "ARC,cost,demand\n\nb,-2,0\na,1,0\nc,-3,0\n")
    (problem,) = problems(ARCS, path)
    assert problem.message == "2 of 3 values of `cost` lie outside [0, inf]"
    assert problem.notes == ('first: cost["b"] = -2, cost["c"] = -3   (costs.csv, rows 3, 5)',)


def test_csv_mistakes(problems, tmp_path):
    for content, code, words in [
        ("ARC,cost,demand\na,1,2\nb,x,2\nc,3,4\n", "BLV0407", "'x' in row 3 of column cost"),
        ("ARC,cost,demand\na,1,2\nb,2\n", "BLV0411", "row 3 has 2 cells, the first has 3"),
        ("", "BLV0411", "empty"),
        (
            "ARC,cost,demand\na,1_000,2\nb,1,2\nc,3,4\n",
            "BLV0407",
            "'1_000' in row 2",
        ),
        ("ARC,cost,demand\na,\u0661,2\nb,1,2\nc,3,4\n", "BLV0407", "in row 2 of column cost"),
        ("ARC,cost,demand,cost\na,1,2,5\n", "BLV0411", "`cost` twice (columns 2 and 4)"),
        ("ARC,cost,demand\na,1,2\n ,1,2\n", "BLV0411", "an empty label in row 3 of column ARC"),
        ("ARC,cost,demand\na\0,1,2\n", "BLV0411", "a NUL character in the label in row 2"),
        ("ARC;cost;demand\na;1;2\n", "BLV0411", "this file has `;` where commas divide cells"),
        ("ARC\tcost\tdemand\na\t1\t2\n", "BLV0411", "this file has tabs where commas divide"),
        ("ARC,cost,demand\na,1,2\na,2,2\nb,1,1\nc,1,1\n", "BLV0423", '"a" twice'),
        ("ARC,cost,demand\na,1,2\nb,1,1\n", "BLV0409", "1 of the 3"),
        ("ARC,cost,demand\na,1,2\nb,1,1\nc,1,1\nd,1,1\n", "BLV0410", '"d"'),
        ("ARC,cost,demand\na,1,2\nb,,1\nc,1,1\n", "BLV0406", "`cost`"),
    ]:
        found = problems(ARCS, write(tmp_path / "d.csv", content))
        assert code in [p.code for p in found]
        assert any(words in p.message for p in found), [p.message for p in found]


def test_a_first_row_that_only_python_reads_as_numbers_is_not_lost(problems, tmp_path):
    path = write(tmp_path / "v.csv", "1_000\n2\n")
    (problem,) = problems("dim n; param v[n];", files=[("v", path)])
    assert "'1_000' in its first row is no number" in problem.message


def test_labels_that_only_python_reads_as_numbers_are_text(bound, tmp_path):
    data = bound("set S; param c[S];", write(tmp_path / "d.csv", "S,c\n1_0,1\n2,2\n"))
    assert list(data.labels.values()) == [("1_0", "2")]


def test_json(bound, array, tmp_path):
    content = {"X": [[1, 2], [3, 4]], "c": {"b": 2, "a": 1}, "cap": "inf", "note": "unused"}
    path = write(tmp_path / "d.json", json.dumps(content))
    data = bound('dim n, p; set S = {"a", "b"}; param X[n, p], c[S], cap in [0, inf];', path)
    np.testing.assert_array_equal(array(data, "c"), [1, 2])
    assert array(data, "cap") == np.inf


def test_json_mistakes(problems, tmp_path):
    for content, words in [
        ("{", "no JSON"),
        ("[1]", "object"),
        ("[" * 100_000, "its lists and objects are nested too deeply"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "lists nested deeper than any array"),
        ('{"a": ' + "1" * 5000 + "}", "a whole number of thousands of digits"),
        ('{"a": 1, "a": 5}', 'it has the key "a" twice in one object'),
        ('{"a": "seven"}', "'seven'"),
        ('{"a": null}', "not a number"),
    ]:
        (problem,) = problems("param a;", write(tmp_path / "d.json", content))
        assert words in problem.message, problem.message


def test_reads_in_a_model(model, tmp_path, array):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "v.npz", X=np.eye(2))
    write(tmp_path / "d.csv", "c,S\n1,b\n2,a\n")
    write(tmp_path / "d.json", '{"k": [5, 6]}')
    program = model(
        'dim n; set S = {"a", "b"}; param X[n, n] = file("data/v.npz", "X"), '
        'c[S] = csv("d.csv", "c"), k[n] = json("d.json", "k");'
    )
    data = bind(program).data
    np.testing.assert_array_equal(array(data, "c"), [2, 1])
    np.testing.assert_array_equal(array(data, "k"), [5, 6])
    assert data.origins["X"] == 'data/v.npz["X"]'


def test_a_read_is_only_a_default(model, tmp_path, array):
    program = model('dim n; param c[n] = csv("absent.csv", "c");')
    np.testing.assert_array_equal(array(bind(program, {"c": [1]}).data, "c"), [1])


def check_read(model, text):
    from bilevelpy.errors import DataError

    with pytest.raises(DataError) as caught:
        bind(model(text))
    (problem,) = caught.value.diagnostics
    return problem


def test_reads_that_fail(model, tmp_path):
    np.savez(tmp_path / "v.npz", Xs=np.eye(2))
    problem = check_read(model, 'dim n; param X[n, n] = file("v.npz", "X");')
    assert (problem.code, problem.hint) == ("BLV0412", "did you mean `Xs`?")
    problem = check_read(model, 'dim n; param X[n, n] = file("w.npz", "X");')
    assert problem.message == "cannot read w.npz: there is no such file"


def test_reads_stay_inside_the_folder(model, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-secret.json"
    write(outside, "3")
    (tmp_path / "link.json").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "dir.json").mkdir()
    for name, words in [
        ("link.json", "symbolic link"),
        ("pipe.json", "no regular file"),
        ("dir.json", "folder"),
    ]:
        problem = check_read(model, f'param a = json("{name}");')
        assert problem.code == "BLV0413"
        assert words in problem.primary.text


def npy(shape="(3,)", descr="'<f8'", body=b""):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(f"{name}.npy", content)


def test_hostile_archives(problems, tmp_path):
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    good = io.BytesIO()
    np.save(good, np.arange(1000.0))
    path = tmp_path / "d.npz"
    for content, words in [
        (pickled.getvalue(), "pickle"),
        (npy("(10**30,)"), "damaged"),
        (npy("(1000000000000,)"), "cut off"),
        (npy("(3,)", body=b"12345678"), "cut off"),
        (npy("(-3,)"), ""),
        (npy("('a',)"), ""),
        (b"nothing", ""),
        (b"", ""),
        (good.getvalue()[:500], "cut off"),
        (npy("(" * 3000), ""),
    ]:
        archive(path, v=content)
        (problem,) = problems("dim n; param v[n];", path)
        assert problem.code == "BLV0411"
        assert words in problem.message, problem.message
        assert "d.npz" in problem.message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_an_archive_holds_twice(problems, tmp_path):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for values in ([1.0, 2.0], [3.0, 4.0]):
            stream = io.BytesIO()
            np.save(stream, np.array(values))
            archive.writestr("y.npy", stream.getvalue())
    found = problems("dim n; param y[n];", path)
    assert "it holds `y` more than once" in str(found)


def test_damaged_archives(problems, tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, v=np.random.default_rng(0).normal(size=2000))
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:3000] + bytes(200) + whole[3200:], b"PK\x05\x06", b""):
        path.write_bytes(damaged)
        (problem,) = problems("dim n; param v[n];", path)
        assert problem.code == "BLV0411"


def test_members_that_nobody_asks_for_are_not_read(bound, tmp_path):
    archive(tmp_path / "d.npz", v=npy("(1,)", body=struct.pack("<d", 2.0)), bad=b"rubbish")
    assert bound("param v;", tmp_path / "d.npz").arrays["v"] == 2.0


def test_files_that_are_not_there(problems, tmp_path):
    (problem,) = problems("param a;", tmp_path / "none.npz")
    assert "no such file" in problem.message
    (problem,) = problems("param a;", tmp_path / "none.txt")
    assert "none of .npz" in problem.message
    (problem,) = problems("param a;", 17)
    assert problem.code == "BLV0411"


def test_reads_in_a_model_have_a_limit(model, tmp_path, monkeypatch):
    monkeypatch.setattr("bilevelpy.sema.binding.reads.TEXT_LIMIT", 5)
    monkeypatch.setattr("bilevelpy.sema.binding.reads.MODEL_LIMIT", 5)
    write(tmp_path / "d.json", "[1, 2, 3]")
    np.save(tmp_path / "d.npy", np.ones(3))
    for call in ('json("d.json")', 'file("d.npy")'):
        problem = check_read(model, f"dim n; param v[n] = {call};")
        assert "exceed the limit of 5" in problem.message
