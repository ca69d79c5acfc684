"""Templates from strangers: what sound ones write, and that nothing else gets far."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.tokenizer import jinja_bounds
from minillama.tokenizer.jinja_sandbox import ChatTemplate
from minillama.tokenizer.marks import Marks

SIZE, STEPS, WIDTH = "more than 100000 characters", "more than 20000 steps", "to a width of more than"


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source).render(variables)


SOUND: dict[str, tuple[str, str]] = {
    "blocks leave no line": ("{% if true %}\n  {% set x = 1 %}\n{{ x }}\n{% endif %}\n", "1\n"),
    "break and continue": ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                           "{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "023"),
    "loop": ("{% for x in 'abc' %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }} {% endfor %}",
             "1False 2Falsea 3Trueb "),
    "loop with a condition":
        ("{% for x in [1, 2, 3] if x != 2 %}{{ x }}{{ loop.length }}{% else %}-{% endfor %}", "1232"),
    "loop over nothing": ("{% for x in y %}{{ x }}{% else %}-{% endfor %}", "-"),
    "loop over pairs": ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
    "loop in a loop of its own": ("{% for x in [[1], [2, [3]]] recursive %}({{ loop(x) if x is iterable else x }})"
                                  "{% endfor %}", "((1))((2)((3)))"),
    "generation": ("a{% generation %}{% set b = 1 %}{{ b }}{% endgeneration %}{{ b }}c", "a1c"),
    "macro": ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) ~ m(2) }}", "<1><2>"),
    "call": ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{% endcall %}", "<x>"),
    "namespace": ("{% set ns = namespace(n=0, self=1) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}"
                  "{{ ns.n }}{{ ns.self }}", "31"),
    "set block": ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x | length }}", "a12"),
    "filter block": ("{% filter upper %}a{% endfilter %}", "A"),
    "dict": ("{{ dict(a=1) }}{{ dict({'b': 2}, c=3) }}", "{'a': 1}{'b': 2, 'c': 3}"),
    "joiner": ("{% set j = joiner('|') %}{% for x in 'abc' %}{{ j() ~ x }}{% endfor %}", "a|b|c"),
    "cycler": ("{% set c = cycler(1, 2) %}{% for x in 'abc' %}{{ c.next() ~ x }}{% endfor %}", "1a2b1c"),
    "unpacking": ("{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"),
    "slices": ("{{ [1, 2, 3][1:] }}{{ 'abc'[::-1] }}", "[2, 3]cba"),
    "join": ("{{ [1, 'b'] | join }}{{ [1, 'b'] | join(', ') }}{{ [{'a': 1}, {'a': 2}] | join('-', attribute='a') }}"
             "{{ '+'.join(['x', 'y']) }}", "1b1, b1-2x+y"),
    "replace": ("{{ 'aaa' | replace('a', 'b') }}{{ 'aaa' | replace('a', 'b', 2) }}{{ 'aaa'.replace('a', 'b', 1) }}"
                "{{ 'ab'.replace('', '-') }}", "bbbbbabaa-a-b-"),
    "format": ("{{ '%s-%03d' % ('a', 7) }}{{ '%s' % 1 }}{{ '%s|%5.2f%%' | format('b', 1) }}{{ '%(x)s' | format(x=3) }}",
               "a-0071b| 1.00%3"),
    "indent": ("{{ 'a\n\nb' | indent }}{{ 'a\nb' | indent(2, true) }}{{ 'a\nb' | indent('> ', first=true) }}",
               "a\n\n    b  a\n  b> a\n> b"),
    "numbers": ("{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 7 / 2 }} {{ -3 * 2 }} {{ 2.5 ** 2 }} {{ 'ab' * 2 }}"
                " {{ 2 * [1] }}", "1024 3 3 3.5 -6 6.25 abab [1, 1]"),
    "tests": ("{{ x is defined }}{{ 'a' is string }}{{ {} is mapping }}{{ none is none }}", "FalseTrueTrueTrue"),
    "filters": ("{{ ' a ' | trim }}{{ [3, 1] | sort | first }}{{ {'b': 1, 'a': 2} | dictsort }}{{ x | default('d') }}",
                "a1[('a', 2), ('b', 1)]d"),
    "select": ("{{ [{'r': 'u'}, {'r': 'v'}] | selectattr('r', 'equalto', 'v') | map(attribute='r') | list }}", "['v']"),
    "methods in a loop": ("{% for x in ['a-b'] %}{{ x.replace('-', '+') }}{{ '|'.join([x, x]) }}{{ x.ljust(4) }}"
                          "{{ '{}'.format(x) }}{% endfor %}", "a+ba-b|a-ba-b a-b"),
    "methods in a block": ("{% block b %}{{ 'aa'.replace('a', 'b', 1) }}{{ ','.join('ab') }}{{ '7'.zfill(3) }}"
                           "{{ '{0}{0}'.format('x') }}{% endblock %}", "baa,b007xx"),
    "methods in a macro in a loop":
        ("{% macro m(x) %}{% for y in x %}{{ y.replace('a', 'b') }}{% endfor %}{% endmacro %}"
         "{% for x in ['ab'] %}{{ m(x) }}{% endfor %}", "bb"),
    "methods that pad":
        ("{{ 'a'.center(3, '-') }}{{ 'a'.rjust(2) }}{{ 'a\tb'.expandtabs(4) }}{{ 'a\t'.expandtabs() }}|",
         "-a- aa   ba       |"),
    "str.format": ("{{ '{}, {a} {b[0]} {c.d!r:>5} {e:05.1f} {{}}'.format(1, a='x', b=[2], c={'d': 'y'}, e=2.25) }}"
                   "{{ '{x}-{x}'.format_map({'x': 'z'}) }}{{ '{:>{w}}'.format('q', w=3) }}",
                   "1, x 2   'y' 002.2 {}z-z  q"),
    "str.format of what there is not": ("{{ '{}'.format(x) }}{{ '{0.__class__}'.format('a') }}|", "|"),
    "% of names": ("{{ '%(a)s%(b)02d%(a)s' % {'a': 'x', 'b': 3, 1: 2} }}{{ '%s' % {} }}{{ '%s' % [1] }}", "x03x{}[1]"),
    "round": ("{{ 2.567 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(method='ceil') | int }} "
              "{{ 2.39 | round(1, 'floor') }} {{ 1234 | round(-2) }}", "3.0 2.57 3 2.3 1200"),
    "batch": ("{% for row in [1, 2, 3] | batch(2, '-') %}{{ row | join }} {% endfor %}{{ 'abc' | batch(2) | list }}",
              "12 3- [['a', 'b'], ['c']]"),
    "slice": ("{{ [1, 2, 3, 4, 5] | slice(2) | list }}{{ [1, 2, 3] | slice(2, 0) | map('length') | list }}",
              "[[1, 2, 3], [4, 5]][2, 2]"),
    "more filters": ("{{ 'a' | center(3) }}{{ 123456 | filesizeformat }}{{ {'a': 1, 'b': none} | xmlattr }}"
                     "{{ '<b>x</b> &amp; y' | striptags }}{{ ['a'] | random }}{{ {'b': [1]} | pprint }}",
                     " a 123.5 kB a=\"1\"x & ya{'b': [1]}"),
    "wordwrap": ("{{ 'one two three' | wordwrap(7) }}|{{ 'abcdef' | wordwrap(4, wrapstring='/') }}",
                 "one two\nthree|abcd/ef"),
    "forceescape": ("{{ '<' | forceescape }}{{ '<' | e }}{{ '<' }}", "&lt;&lt;<"),
    "dict.fromkeys": ("{{ dict.fromkeys(['a', 'b'], 0) }}{{ dict.fromkeys('a') }}", "{'a': 0, 'b': 0}{'a': None}"),
    "nothing of HTML": ("{{ '<&\\'>' | tojson }}", '"<&\'>"'),
    "tojson": ("{{ {'b': 'ä', 'a': [1, none]} | tojson }}", '{"b": "ä", "a": [1, null]}'),
    "tojson with all": ("{{ {'b': 'ä', 'a': 1} | tojson(true, indent=2, separators=(',', ':'), sort_keys=true) }}",
                        '{\n  "a":1,\n  "b":"\\u00e4"\n}'),
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_template(case: str) -> None:
    source, text = SOUND[case]
    assert render(source) == text


def test_the_day() -> None:
    before = datetime.now()
    shown = datetime.strptime(render("{{ strftime_now('%d %b %Y %H:%M:%S') }}"), "%d %b %Y %H:%M:%S")
    assert before.replace(microsecond=0) <= shown <= datetime.now()


@given(st.lists(st.fixed_dictionaries({"role": st.text(), "content": st.text()})))
def test_any_messages(messages: list[dict[str, str]]) -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m['content'] + '|' }}{% endfor %}{{ messages | tojson }}"
    plain = "".join(f"<{m['role']}>{m['content']}|" for m in messages)
    assert render(source, messages=messages) == plain + json.dumps(messages, ensure_ascii=False)


GROWING = (
    "{{% set ns = namespace(x={start}) %}}{{% for i in range(9999) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    "{{{{ ns.x }}}}"
)
HOSTILE: dict[str, tuple[str, str]] = {
    "loops in loops": ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", STEPS),
    "loop over letters": ("{% for c in 'a' * 99999 %}{% endfor %}", STEPS),
    "long range": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "macros in macros":
        ("{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}", STEPS),
    "macro without end": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
    "block without end": ("{% block a %}{{ self.a() }}{% endblock %}", "recursion"),
    "recursive loop":
        ("{% for x in [1, 1] recursive %}{% if loop.depth < 60 %}{{ loop([1, 1]) }}{% endif %}{% endfor %}", STEPS),
    "text times": ("{{ 'a' * 10**10 }}", SIZE),
    "times text": ("{{ 10**10 * 'a' }}", SIZE),
    "text times, twice": ("{{ ('a' * 99999) * 99999 }}", SIZE),
    "list times": ("{{ [1] * 10**10 }}", SIZE),
    "power": ("{{ 9 ** (9 ** 9) }}", "more than 10000 bits"),
    "squares": (GROWING.format(start="9999", step="ns.x * ns.x"), "more than 10000 bits"),
    "text doubled": (GROWING.format(start="'a'", step="ns.x + ns.x"), SIZE),
    "text joined with itself": (GROWING.format(start="'a'", step="ns.x ~ ns.x"), SIZE),
    "lists in lists": (GROWING.format(start="1", step="[ns.x, ns.x]"), SIZE),
    "tuples in tuples": (GROWING.format(start="1", step="(ns.x, ns.x)"), SIZE),
    "dicts in dicts": (GROWING.format(start="1", step="{'a': ns.x, 'b': ns.x}"), SIZE),
    "dicts made of dicts": (GROWING.format(start="1", step="dict(a=ns.x, b=ns.x)"), SIZE),
    "a list's text in lists": (GROWING.format(start="1", step="[ns.x, ns.x] | string"), SIZE),
    "replace": ("{{ ('a' * 9999) | replace('a', 'b' * 9999) }}", SIZE),
    "method replace": ("{{ ('a' * 9999).replace('a', 'b' * 9999) }}", SIZE),
    "join": ("{{ range(999) | join('a' * 9999) }}", SIZE),
    "method join": ("{{ ('a' * 9999).join(['b'] * 999) }}", SIZE),
    "indent": ("{{ ('\n' * 9999) | indent(9999, blank=true) }}", SIZE),
    "indent one line": ("{{ 'a' | indent(10**9, true) }}", SIZE),
    "tojson with indent": ("{{ ([1] * 9999) | tojson(indent=10**9) }}", SIZE),
    "% with a width": ("{{ '%1000000000d' % 1 }}", WIDTH),
    "% with a precision": ("{{ '%.1000000000f' % 1 }}", WIDTH),
    "% with a width given": ("{{ '%*d' % (10**9, 1) }}", WIDTH),
    "% of a name with a width": ("{{ '%(a)1000000000d' | format(a=1) }}", WIDTH),
    "% of a name in brackets with a width": ("{{ '%(a(b))1000000000d' % {'a(b)': 1} }}", WIDTH),
    "% with a width behind a sign of per cent": ("{{ '%%%1000000000d' % 1 }}", WIDTH),
    "% of a name without an end": ("{{ ('%(' * 10000) % {'a': 1} }}", "incomplete format key"),
    "% of a long form": ("{{ ('%%' * 30000 ~ '%s') % 1 }}", STEPS),
    "% of many": ("{% set x = '%s' * 9999 %}{{ x % ([x] * 9) }}", SIZE),
    "output": ("{% for i in range(999) %}{{ 'a' * 9999 }}{% endfor %}", SIZE),
    "literal output": ("{% for i in range(999) %}" + "a" * 999 + "{% endfor %}", SIZE),
    "output of a macro": ("{% macro m() %}{% for i in range(999) %}{{ 'a' * 999 }}{% endfor %}{% endmacro %}"
                          "{{ m() | length }}", SIZE),
    "output that is set":
        ("{% set x %}{% for i in range(999) %}{{ 'a' * 999 }}{% endfor %}{% endset %}{{ x | length }}", SIZE),
    "filter that pads": ("{{ 'a' | center(10**9) }}", SIZE),
    "filter that pads, by name": ("{{ 'a' | center(width=10**9) }}", SIZE),
    "method that pads": ("{{ 'a'.ljust(10**9) }}", SIZE),
    "method that pads in a loop": ("{% for x in 'a' %}{{ x.center(10**9, '-') }}{% endfor %}", SIZE),
    "zeros": ("{{ '1'.zfill(10**9) }}", SIZE),
    "tabs": ("{{ ('\t' * 9999).expandtabs(9999) }}", SIZE),
    "tabs, by name": ("{{ '\t'.expandtabs(tabsize=10**9) }}", SIZE),
    "method replace in a loop": ("{% for x in ['a' * 9999] %}{{ x.replace('a', x) }}{% endfor %}", SIZE),
    "method join in a loop": ("{% for x in ['a' * 999] %}{{ x.join(x) }}{% endfor %}", SIZE),
    "str.format to a width": ("{{ '{:1000000000}'.format(1) }}", WIDTH),
    "str.format to a width of many digits": ("{{ ('{:' ~ '1' * 5000 ~ '}').format(1) }}", WIDTH),
    "str.format to a precision": ("{{ '{:.1000000000f}'.format(1.5) }}", WIDTH),
    "str.format to a width given": ("{{ '{:{}}'.format(1, 10**9) }}", WIDTH),
    "str.format to a width of text given": ("{{ '{:{w}}'.format(1, w='>' ~ 10**9) }}", WIDTH),
    "str.format of many": ("{{ ('{0}' * 9999).format('a' * 9999) }}", SIZE),
    "str.format of many representations": ("{{ ('{0!r}' * 9999).format('a' * 9999) }}", SIZE),
    "str.format of many in a map": ("{{ ('{a}' * 9999).format_map({'a': 'a' * 9999}) }}", SIZE),
    "str.format of more fields than steps": ("{{ ('{}' * 30000).format(*range(30000)) }}", STEPS),
    "str.format of many empty fields": ("{{ ('{0}' * 30000).format('') }}", STEPS),
    "str.format of a safe text": ("{{ ('{}' | safe).format(1) }}", "a text that is marked safe"),
    "str.format as an attribute": ("{{ ('{:1000000000}' | attr('format'))(1) }}", WIDTH),
    "str.format as an item": ("{{ '{:1000000000}'['format'](1) }}", WIDTH),
    "% of a name again and again": ("{{ ('%(a)s' * 999) % {'a': 'a' * 9999} }}", SIZE),
    "format of a name again and again": ("{{ ('%(a)s' * 999) | format(a='a' * 9999) }}", SIZE),
    "round to a power": ("{{ 5 | round(-10**9) }}", WIDTH),
    "round up to a power": ("{{ 5 | round(10**9, 'ceil') }}", WIDTH),
    "round a list": ("{{ [1] | round(9, 'ceil') }}", "round takes a number"),
    "round a text": ("{{ 'a' | round(9, 'floor') }}", "round takes a number"),
    "batch": ("{{ [1] | batch(10**9, 0) | list }}", SIZE),
    "batch filled with much": ("{{ [1] | batch(9999, 'a' * 9999) | list }}", SIZE),
    "slice": ("{{ [1] | slice(10**9) | list }}", SIZE),
    "slice by a text": ("{{ [1] | slice('a' * 9999, 'a' * 9999) | list }}", "cannot be interpreted as an integer"),
    "wordwrap with much between": ("{{ ('a' * 999) | wordwrap(1, wrapstring='b' * 9999) }}", SIZE),
    "wordwrap of much": ("{{ ('a' * 30000) | wordwrap }}", "a filter that takes long more than 20000"),
    "pprint of much": ("{{ ['a' * 30000] | pprint }}", "a filter that takes long more than 20000"),
    "striptags of much": ("{{ ('<!--' * 9999) | striptags }}", "a filter that takes long more than 20000"),
    "urlize": ("{{ 'a' | urlize }}", "uses the filter urlize, which is left out here"),
    "no filter": ("{{ 'a' | shout }}", "is not sound Jinja: No filter named 'shout'"),
    "translate": ("{{ 'a'.translate({97: 'b' * 9999}) }}", "attribute 'translate' of 'str' object is unsafe"),
    "encode": ("{{ 'a'.encode() }}", "attribute 'encode' of 'str' object is unsafe"),
    "inside of str.format": ("{{ '{}'.format.__globals__.x }}", "attribute '__globals__' of"),
    "methods of a type": ("{{ dict.fromkeys.__self__.x }}", "attribute '__self__' of"),
    "other methods of dict": ("{{ dict.mro() }}", "has no attribute 'mro'"),
    "bytes": ("{{ (1).to_bytes(10**9) }}", "attribute 'to_bytes' of 'int' object is unsafe"),
    "lorem ipsum": ("{{ lipsum(n=10**9) }}", "'lipsum' is undefined"),
    "class": ("{{ ''.__class__.__mro__ }}", "attribute '__class__' of 'str' object is unsafe"),
    "globals": ("{{ raise_exception.__globals__.x }}", "attribute '__globals__' of 'function' object is unsafe"),
    "a module of its own": ("{{ self.__init__.__globals__ }}", "attribute '__init__' of"),
    "a list that is changed": ("{{ messages.append(1) }}", "attribute 'append' of 'list' object is unsafe"),
    "private names": ("{% set ns = namespace(__html__=range) %}", "no place for the private name '__html__'"),
    "private names later": ("{% set ns = namespace() %}{% set ns._x = 1 %}", "no place for the private name '_x'"),
    "include": ("{% include 'x' %}", "no loader"),
    "import": ("{% import 'x' as y %}", "no loader"),
    "brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled: maximum recursion"),
    "ifs": ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "cannot be compiled: maximum recursion"),
    "fors": ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "cannot be compiled: too many statically nested blocks"),
    "length": ("a" * 200_001, "the chat template has 200001 characters, and at most 200000 are read"),
    "syntax": ("{% if %}", "is not sound Jinja: Expected an expression, got 'end of statement block' (line 1)"),
    "tag": ("{{ 1 }}\n{% nonsense %}", "is not sound Jinja: Encountered unknown tag 'nonsense'. (line 2)"),
    "undefined": ("{{ a.b }}", "fails on this conversation: 'a' is undefined"),
    "types": ("{{ 'a' + 1 }}", "fails on this conversation: can only concatenate str"),
    "division": ("{{ 1 / 0 }}", "fails on this conversation: division by zero"),
    "refusal": ("{{ raise_exception('no\nwords') }}", "refuses this conversation: no words"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_broken_template(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by bounds below the real ones, so that the test is quick; no template would end without them."""
    monkeypatch.setattr(jinja_bounds, "MAX_SIZE", 100_000)
    monkeypatch.setattr(jinja_bounds, "MAX_STEPS", 20_000)
    source, words = HOSTILE[case]
    with pytest.raises(ValueError, match="the chat template ") as caught:
        render(source, messages=[1])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_time_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{% for i in range(9) %}{{ i }}{% endfor %}")
    assert template.render({}) == "012345678"
    monkeypatch.setattr(jinja_bounds, "MAX_SECONDS", -1.0)  # over before it begins
    with pytest.raises(ValueError, match="takes longer than -1 seconds"):
        template.render({})


def test_each_rendering_has_bounds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_bounds, "MAX_STEPS", 100)
    template = ChatTemplate("{% for i in range(n) %}{% endfor %}")
    for _ in range(5):
        assert template.render({"n": 80}) == ""
    with pytest.raises(ValueError, match="more than 100 steps"):
        template.render({"n": 101})


def test_a_namespace_shows_nothing() -> None:
    assert render("{% set ns = namespace(a=1) %}{% set ns.b = [ns, ns] %}{{ ns.b }}") == "[<namespace>, <namespace>]"


def test_characters_that_tojson_leaves() -> None:
    template = ChatTemplate("{{ x | tojson(ensure_ascii=true) }}")
    marks = Marks("\U0010ffff", "\U0010fffe", "\U0010fffd", "\U0010fffc")
    assert template.render({"x": "ä\U0010ffff"}, marks) == '"\\u00e4\U0010ffff"'
