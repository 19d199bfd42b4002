"""Tells backslashes that a model forgot to escape from the escapes of a JSON string.

A model that copies LaTeX or a path into a string often writes `\\frac` or `C:\\Users\\new` as they
are. JSON then reads a form feed or a line break in the middle of a word.
"""

import re

# Names of LaTeX whose first letter makes an escape. An escape may well stand before other letters:
# a line often begins in lower case ("\nabout"). So names are left out whose rest is a word or one
# letter (\nexists, \ne); \nu, \tan and \to count only where a formula goes on.
_NAMES = (
    r"b(?:ackslash|ar|ecause|egin|eta|eth|etween|f|fseries|igcap|igcirc|igcup|igoplus|igotimes"
    r"|igskip|igstar|igvee|igwedge|igg?[lmr]?|inom|lacksquare|m|mod|old|oldmath|oldsymbol|ot|owtie"
    r"|ox|oxed|oxplus|oxtimes|reve|ullet|umpeq)"
    r"|f(?:box|lat|ontsize|ootnote|ootnotesize|orall|rac|rak|ramebox|rown)"
    r"|n(?:abla|atural|earrow|eg|eq|ewcommand|ewline|ewpage|geq|leq|oindent|olimits|onumber|orm|ot"
    r"|otin|subseteq|u(?=[$^_{}])|warrow)"
    r"|r(?:angle|brace|brack|ceil|enewcommand|floor|ho|ight|ightarrow|ightharpoonup|times|vert"
    r"|Vert)"
    r"|t(?:ag|an(?=[\d\\$^_{(])|anh|au|binom|ext(?:bf|color|it|md|normal|rm|sc|sf|sl|style|tt|up"
    r"|width)?|frac|herefore|heta|hickapprox|hicksim|hinspace|ilde|imes|iny|itle"
    r"|o(?=[\d\\$^_{}])|oday|op|oprule|riangle(?:down|left|right|q)?|woheadrightarrow)"
)
_COMMAND = rf"(?P<command>\\(?:{_NAMES})(?![A-Za-z])|(?<![A-Za-z])\\to(?=\s))"
_OTHER = r"\\(?s:.)"
# A path from a drive letter to the next white space. A \n or \t belongs to it only before a
# lower-case letter: a sentence on the next line begins with a capital. Python has \x and \U, too.
_PATH = (
    r"(?P<path>(?<![A-Za-z0-9])[A-Za-z]:"
    r"(?:\\(?!u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8}|[nt](?![a-z]))"
    r"[\w.$%~(-][^\s\\\"]*)+)"
)
_UNIT = re.compile(f"{_PATH}|{_COMMAND}|{_OTHER}")
_NO_PATH = re.compile(f"{_COMMAND}|{_OTHER}")
# Shows that a path is one: a backslash that begins no escape, or none that is written between
# words. "Q:\nwhat" has neither.
_UNESCAPED = re.compile(r"\\(?:[bfr][a-z]|(?![bfnrt]|u[0-9a-fA-F]{4}))")


def escape_commands(raw: str) -> str:
    """Escape the backslashes of LaTeX commands and Windows paths in a JSON string's contents.

    A command is a listed name, as a whole. A path counts as a whole, if one of its backslashes
    begins no escape, or `\\b`, `\\f` or `\\r` before a lower-case letter. Takes a whole JSON text,
    too.
    """
    if "\\" not in raw:
        return raw

    def replace(match: re.Match[str]) -> str:
        if match.lastgroup == "command":
            return "\\" + match.group()
        if match.lastgroup != "path":
            return match.group()
        path = match.group()
        if _UNESCAPED.search(path):
            return path.replace("\\", "\\\\")
        return _NO_PATH.sub(replace, path)

    return _UNIT.sub(replace, raw)
