"""The runner as a sandbox starts it: a process of its own, with descriptors 1, 2 and 3 on append-only files.

    python3 -m unittest discover sandbox-images/runner/tests

Tests that need numpy or torch are left out where the library is not installed.
"""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

RUNNER = pathlib.Path(__file__).resolve().parent.parent / "runner.py"


def has(library):
    return unittest.skipUnless(importlib.util.find_spec(library), f"{library} is not installed")


class Result:
    def __init__(self, code, folder):
        self.code = code
        self.stdout = (folder / "stdout").read_bytes().decode("utf-8", "replace")
        self.stderr = (folder / "stderr").read_bytes().decode("utf-8", "replace")
        self.lines = (folder / "metrics").read_bytes().splitlines()
        self.metrics = [json.loads(line) for line in self.lines]
        self.work = folder / "work"


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)
        self.addCleanup(self._folder.cleanup)

    def run_program(self, source, files=None, **run):
        (self.folder / "in" / "files").mkdir(parents=True, exist_ok=True)
        (self.folder / "work").mkdir(exist_ok=True)
        given = {"program": "program.py", "params": {}, "seed": 3, "time_limit_ms": 60_000, "cpus": 1.0} | run
        (self.folder / "in" / "run.json").write_text(json.dumps(given))
        source = source if isinstance(source, bytes) else textwrap.dedent(source).encode()
        (self.folder / "in" / "files" / "program.py").write_bytes(source)
        for name, text in (files or {}).items():
            (self.folder / "in" / "files" / name).write_text(text)
        logs = []
        for name in ("stdout", "stderr", "metrics"):
            path = self.folder / name
            path.write_bytes(b"")
            logs.append(os.open(path, os.O_WRONLY | os.O_APPEND))
        environment = {
            "PATH": os.environ["PATH"], "AUTORESEARCH_IN": str(self.folder / "in"), "PYTHONHASHSEED": "0",
            "AUTORESEARCH_PACKAGES": str(self.folder / "packages"),
        }

        def descriptors():
            os.dup2(logs[2], 3)

        try:
            process = subprocess.run(
                [sys.executable, "-sP", str(RUNNER)], cwd=self.folder / "work", env=environment,
                stdin=subprocess.DEVNULL, stdout=logs[0], stderr=logs[1], preexec_fn=descriptors,
                pass_fds=(3,), close_fds=True, timeout=120, check=False,
            )
        finally:
            for log in logs:
                os.close(log)
        return Result(process.returncode, self.folder)


class ProgramTest(RunnerTest):
    def test_runs_as_main_with_params_and_local_modules(self):
        done = self.run_program(
            """
            import sys, helper, autoresearch as ar
            if __name__ == "__main__":
                print(helper.double(ar.params["n"]), sys.argv[1:], __file__.endswith("files/program.py"))
            """,
            files={"helper.py": "def double(n): return 2 * n\n"}, params={"n": 4},
        )
        self.assertEqual((done.code, done.stdout), (0, "8 [] True\n"), done.stderr)

    def test_exit_codes_are_pythons_own(self):
        for call, code, said in [
            ("sys.exit()", 0, ""), ("sys.exit(7)", 7, ""), ("sys.exit(True)", 1, ""), ("sys.exit(256)", 0, ""),
            ("sys.exit('no data')", 1, "no data\n"), ("os._exit(9)", 9, ""), ("raise SystemExit(137)", 137, ""),
        ]:
            done = self.run_program(f"import os, sys\n{call}\n")
            self.assertEqual((done.code, done.stderr), (code, said), call)

    def test_a_traceback_has_the_programs_frames_only_and_ends_with_the_exception(self):
        done = self.run_program("def train():\n    raise ValueError('shapes (3,4) and (5,) not aligned')\n\ntrain()\n")
        self.assertEqual(done.code, 1)
        self.assertTrue(done.stderr.startswith("Traceback (most recent call last):\n"), done.stderr)
        self.assertNotIn("runner.py", done.stderr)
        self.assertIn("    raise ValueError('shapes", done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1], "ValueError: shapes (3,4) and (5,) not aligned")

    def test_syntax_errors_name_the_line(self):
        done = self.run_program("x = 1\nif x\n    pass\n")
        self.assertEqual(done.code, 1)
        self.assertNotIn("runner.py", done.stderr)
        self.assertIn("line 2", done.stderr)
        self.assertEqual(done.stderr.splitlines()[-1], "SyntaxError: expected ':'")

    def test_bytes_that_are_no_python_are_the_programs_failure(self):
        for source in (b"\xff\xfe\x00", b"x = 1\x00", b"print('\xe9')\n"):
            done = self.run_program(source)
            self.assertEqual(done.code, 1, source)
            # Python before 3.11.4 says ValueError for a null byte.
            self.assertRegex(done.stderr.splitlines()[-1], "^(SyntaxError|ValueError: source code)")

    def test_the_exception_is_told_where_the_program_broke_its_streams(self):
        for damage in (
            "sys.stderr.close()", "sys.stderr = None", "os.close(2)", "sys.stdout = sys.stderr = object()",
            "os.closerange(0, 400)", "sys.excepthook = None",
        ):
            done = self.run_program(f"import os, sys\n{damage}\nraise KeyError('lost')\n")
            self.assertEqual(done.code, 1, damage)
            self.assertIn("KeyError: 'lost'", done.stderr, damage)

    def test_odd_exceptions_are_told_too(self):
        done = self.run_program("class Odd(Exception):\n    def __str__(self): raise OSError\nraise Odd\n")
        self.assertEqual(done.code, 1)
        self.assertIn("Odd", done.stderr.splitlines()[-1])
        done = self.run_program("def f(): f()\nf()\n")
        self.assertIn("RecursionError", done.stderr.splitlines()[-1])
        done = self.run_program("raise ValueError('x' * 1_000_000)\n")
        self.assertLess(len(done.stderr), 50_000)
        self.assertIn("characters left out", done.stderr)

    def test_binary_output_and_lone_surrogates_pass(self):
        done = self.run_program("import sys\nsys.stdout.buffer.write(b'\\xff\\x00')\nprint('\\udcff')\n")
        self.assertEqual(done.code, 0, done.stderr)

    def test_what_was_printed_before_a_kill_is_there(self):
        done = self.run_program("import os, signal\nprint('before')\nos.kill(os.getpid(), signal.SIGKILL)\n")
        self.assertEqual((done.code, done.stdout), (-signal.SIGKILL, "before\n"))
        done = self.run_program("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
        self.assertEqual(done.code, -signal.SIGINT)

    def test_atexit_and_threads_are_waited_for(self):
        done = self.run_program(
            """
            import atexit, threading, time
            atexit.register(lambda: print("last"))
            threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
            """
        )
        self.assertEqual(done.stdout, "thread\nlast\n")

    def test_multiprocessing_works_both_ways(self):
        for method in ("fork", "spawn"):
            done = self.run_program(
                f"""
                import multiprocessing as mp
                import autoresearch as ar
                def work(n): return n * ar.params["k"]
                if __name__ == "__main__":
                    with mp.get_context("{method}").Pool(2) as pool:
                        print(pool.map(work, [1, 2]))
                """,
                params={"k": 10},
            )
            self.assertEqual((done.code, done.stdout), (0, "[10, 20]\n"), done.stderr)

    def test_a_file_of_the_program_cannot_take_our_modules_place(self):
        done = self.run_program("import autoresearch as ar\nar.log(x=1)\n", files={"autoresearch.py": "log = None\n"})
        self.assertEqual((done.code, len(done.metrics)), (0, 1), done.stderr)

    def test_a_wrong_description_is_not_the_programs_fault(self):
        for program in ("../program.py", "/etc/passwd", "missing.py", 7):
            done = self.run_program("", program=program)
            self.assertEqual(done.code, 78, program)
            self.assertTrue(done.stderr.startswith("runner: "), done.stderr)


class PackagesTest(RunnerTest):
    def test_packages_are_found_last_and_shadow_nothing(self):
        packages = self.folder / "packages"
        for name in ("einops", "autoresearch", "json"):
            (packages / name).mkdir(parents=True)
            (packages / name / "__init__.py").write_text("PLACE = 'packages'\n")
        done = self.run_program(
            """
            import subprocess, sys
            import autoresearch, einops, json
            print(einops.PLACE, hasattr(autoresearch, "PLACE"), hasattr(json, "PLACE"), sys.path[-1].endswith("packages"))
            fresh = f"import sys; sys.path[:] = {sys.path!r}; import autoresearch; print(hasattr(autoresearch, 'PLACE'))"
            print(subprocess.run([sys.executable, "-sPc", fresh], capture_output=True, text=True).stdout)
            """
        )
        self.assertEqual(done.stdout.split(), ["packages", "False", "False", "True", "False"], done.stderr)

    def test_without_packages_nothing_is_added(self):
        done = self.run_program("import sys; print(any(p.endswith('packages') and 'dist' not in p for p in sys.path[-1:]))")
        self.assertEqual(done.stdout.strip(), "False")


class MetricsTest(RunnerTest):
    def test_values_survive_as_repr(self):
        done = self.run_program(
            """
            import autoresearch as ar, fractions
            ar.log(step=7, loss=0.1, **{"val/acc@1": fractions.Fraction(1, 4)})
            ar.log(nan=float("nan"), inf=float("-inf"), n=True)
            ar.log({"a": 1}, step=2.0)
            ar.log(3, b=2)
            """
        )
        self.assertEqual(done.code, 0, done.stderr)
        self.assertEqual([m.get("step") for m in done.metrics], [7, None, 2, 3])
        self.assertEqual(done.metrics[0]["v"], {"loss": "0.1", "val/acc@1": "0.25"})
        self.assertEqual(done.metrics[1]["v"], {"nan": "nan", "inf": "-inf", "n": "1.0"})
        times = [m["t"] for m in done.metrics]
        self.assertTrue(0 < times[0] <= times[-1] < 60e9 and times == sorted(times))

    def test_long_lines_are_split_and_nothing_is_lost(self):
        done = self.run_program("import autoresearch as ar\nar.log(**{f'metric/{i:050d}': i for i in range(500)})\n")
        self.assertTrue(all(len(line) + 1 <= 4096 for line in done.lines))
        self.assertGreater(len(done.lines), 5)
        merged = {k: v for m in done.metrics for k, v in m["v"].items()}
        self.assertEqual(len(merged), 500)

    def test_what_cannot_be_logged_raises_in_the_program(self):
        for call, error in [
            ("ar.log(**{'a b': 1})", "ValueError"), ("ar.log(**{'': 1})", "ValueError"),
            ("ar.log(**{'a' * 65: 1})", "ValueError"), ("ar.log(**{'é': 1})", "ValueError"),
            ("ar.log({1: 1})", "ValueError"), ("ar.log(x='y')", "ValueError"), ("ar.log(x=None)", "TypeError"),
            ("ar.log(step='a', x=1)", "TypeError"), ("ar.log(step=1.5, x=1)", "TypeError"), ("ar.log()", "TypeError"),
            ("ar.log(step=1 << 70, x=1)", "ValueError"), ("ar.log(x=1, y='z')", "ValueError"),
        ]:
            done = self.run_program(f"import autoresearch as ar\n{call}\n")
            self.assertTrue(done.stderr.splitlines()[-1].startswith(error), (call, done.stderr))
            self.assertEqual(done.lines, [], call)

    def test_forks_log_too_and_lines_do_not_mix(self):
        done = self.run_program(
            """
            import os, autoresearch as ar
            children = []
            for child in range(4):
                pid = os.fork()
                if pid == 0:
                    for step in range(500):
                        ar.log(step=step, **{f"child/{child}": step})
                    os._exit(0)
                children.append(pid)
            for pid in children:
                os.waitpid(pid, 0)
            """
        )
        self.assertEqual(len(done.metrics), 2000, done.stderr)

    def test_a_program_that_closed_or_reused_our_descriptor(self):
        done = self.run_program(
            """
            import os, autoresearch as ar
            os.close(3)
            mine = os.open("mine", os.O_CREAT | os.O_WRONLY)
            assert mine == 3
            ar.log(x=1)
            assert os.path.getsize("mine") == 0
            os.closerange(3, 1024)
            ar.log(x=2)
            """
        )
        self.assertEqual([m["v"]["x"] for m in done.metrics], ["1.0"])
        self.assertIn("RuntimeError: the program closed the descriptor", done.stderr)


class RunTest(RunnerTest):
    def test_artifacts_are_copied_and_names_are_checked(self):
        done = self.run_program(
            """
            import os, autoresearch as ar
            open("model.bin", "wb").write(b"x" * 3_000_000)
            ar.save("model.bin")
            ar.save("checkpoints/last.bin", "model.bin")
            os.makedirs("artifacts", exist_ok=True)
            open("artifacts/own.txt", "w").write("own")
            ar.save("own.txt", "artifacts/own.txt")
            for wrong in ("", "/etc/x", "../x", "a/../b", "a//b", ".", "a\\n", "a\\\\b", "n" * 300, "a/" * 300 + "b"):
                try:
                    ar.save(wrong, "model.bin")
                except ValueError:
                    continue
                raise SystemExit(f"took {wrong!r}")
            try:
                ar.save("folder", "artifacts")
            except IsADirectoryError:
                print("refused a folder")
            """
        )
        self.assertEqual((done.code, done.stdout), (0, "refused a folder\n"), done.stderr)
        found = sorted(str(p.relative_to(done.work)) for p in done.work.rglob("*") if p.is_file())
        self.assertEqual(
            found, ["artifacts/checkpoints/last.bin", "artifacts/model.bin", "artifacts/own.txt", "model.bin"]
        )
        self.assertEqual((done.work / "artifacts/model.bin").stat().st_size, 3_000_000)

    def test_data_sets_time_and_smoke(self):
        done = self.run_program(
            """
            import autoresearch as ar
            print(ar.dataset("digits"), ar.smoke, 50 < ar.time_left() <= 60)
            ar.dataset("mnist")
            """,
            datasets={"digits": "/data/digits"}, smoke=True,
        )
        self.assertEqual(done.stdout, "/data/digits True True\n", done.stderr)
        self.assertIn("this run has no data set 'mnist'; it has: digits", done.stderr)


class StreamsTest(RunnerTest):
    SOURCE = "import random, autoresearch as ar\nprint(random.random(), [ar.seed(s) for s in ('order', 'split')])\n"

    def test_the_seed_decides_and_given_streams_win(self):
        first = self.run_program(self.SOURCE, seed=1).stdout
        self.assertEqual(first, self.run_program(self.SOURCE, seed=1).stdout)
        self.assertNotEqual(first, self.run_program(self.SOURCE, seed=2).stdout)
        given = self.run_program(self.SOURCE, seed=1, streams={"split": 99}).stdout
        self.assertTrue(given.endswith(", 99]\n"), given)
        self.assertEqual(given.split()[0], first.split()[0])

    def test_derivation_is_the_documented_one(self):
        import hashlib

        wanted = int.from_bytes(hashlib.sha256(b"1/order").digest()[:8], "big") >> 1
        self.assertEqual(self.run_program("import autoresearch as ar\nprint(ar.seed('order'))", seed=1).stdout, f"{wanted}\n")

    def test_a_library_is_seeded_when_it_is_imported_and_at_no_other_time(self):
        done = self.run_program(
            """
            import sys, autoresearch as ar
            assert not {"numpy", "torch"} & set(sys.modules)
            import random
            one = random.random()
            del sys.modules["random"]
            import random
            assert random.random() == one
            two = random.random()
            import random
            assert random.random() not in (one, two)
            ar.seed()
            assert random.random() == one
            assert type(random.__spec__.loader).__name__ == "SourceFileLoader"
            """
        )
        self.assertEqual(done.code, 0, done.stderr)

    @has("numpy")
    def test_numpy(self):
        source = """
            import autoresearch as ar, numpy as np
            a = np.random.rand()
            order = ar.generator("order")
            print(a, order.permutation(5), ar.generator("split").permutation(5))
            assert (ar.generator("order").permutation(5) == ar.generator("order").permutation(5)).all()
            ar.use("dropout")
            assert np.random.rand() != a
            ar.seed()
            assert np.random.rand() == a
            """
        first, again, other = (self.run_program(source, seed=s) for s in (1, 1, 2))
        self.assertEqual((first.code, first.stdout), (0, again.stdout), first.stderr)
        self.assertNotEqual(first.stdout, other.stdout)

    @has("torch")
    def test_torch(self):
        source = """
            import autoresearch as ar, torch
            assert torch.get_num_threads() == 1
            weights = torch.nn.Linear(2, 2).weight.tolist()
            shuffled = torch.randperm(8, generator=ar.torch_generator("order")).tolist()
            print(weights, shuffled)
            ar.use("dropout")
            first = torch.rand(3)
            torch.nn.Linear(50, 50)
            ar.use("dropout")
            assert torch.equal(first, torch.rand(3))
            """
        first, again, other = (self.run_program(source, seed=s) for s in (1, 1, 2))
        self.assertEqual((first.code, first.stdout), (0, again.stdout), first.stderr)
        self.assertNotEqual(first.stdout, other.stdout)


if __name__ == "__main__":
    unittest.main()
