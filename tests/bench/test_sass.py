"""Instructions counted in what nvdisasm writes."""

import pytest

pytest.importorskip("triton")

from bench.sass import parse

SOURCE = """\
def inner(x):
    return x + 1


def rare(x):
    return x * 2


def outer(n):
    for i in range(n):
        for j in range(n):
            x = inner(j)
    return rare(x)
"""
# The inner loop has two instructions, the outer one four, and all but the last line are counted.
TEXT = """\
main:
.text.main:
\t//## File "/elsewhere/device.py", line 9
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_1:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_0:
\t//## File "/elsewhere/device.py", line 2 inlined at "/elsewhere/device.py", line 12
\t//## File "/elsewhere/device.py", line 12
        /*0020*/                   FADD.FTZ R1, R1, 1 ;
\t//## File "/elsewhere/device.py", line 11
        /*0030*/               @P0 BRA `(.L_x_0) ;
\t//## File "/elsewhere/device.py", line 10
        /*0040*/              @!P1 BRA `(.L_x_1) ;
\t//## File "/elsewhere/device.py", line 6 inlined at "/elsewhere/device.py", line 13
\t//## File "/elsewhere/device.py", line 13
        /*0050*/                   FMUL R1, R1, 2 ;
\t//## File "/elsewhere/device.py", line 13
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2);
        /*0080*/                   NOP;
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "device.py").write_text(SOURCE)
    return parse(TEXT, tmp_path)


def test_instructions_of_loops_count_as_often_as_these_run(program):
    assert program.executed({"outer": (5, 7)}) == {
        "S2R": 1,
        "IADD3": 5,
        "FADD": 35,
        "BRA": 35 + 5,
        "FMUL": 1,
        "EXIT": 1,
    }


def test_functions_that_are_not_called_do_not_count(program):
    assert "FMUL" not in program.executed({"outer": (1, 1)}, never={"rare"})
    assert "FADD" not in program.executed({"outer": (1, 1)}, never={"inner"})
