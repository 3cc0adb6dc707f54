"""Tell languages apart by their scripts and function words, so that no candidate changes them.

A denoiser writes the language that it knows best, which is mostly English. Its words must not get
into a prompt of another language.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from remask.prompt import Prompt, find_sentences
from remask.sanitize import split_words

# Function words of the languages that a candidate may drift to. N-grams with too few other words
# are no copies of a trace (guard.py).
_LANGUAGES = {
    "english": "the of and to a an in is are be been was were it its this that these those for with"
    " from by on at as or but if not you your they their there have has had do does did will would"
    " can could should may must what which who how when where so than then all any some i me my we"
    " our us he she his her no up out about into over only also just more most very",
    "german": "der das dem des und nicht ist sie mit ein eine einen einer für auf zu zum zur von"
    " im sich werden wird sind oder aber wenn dass ich du wir ihr ihre alle nur noch auch nach aus",
    "french": "le la les des du une et est pas que qui pour dans vous avec sur ce cette ces ou"
    " mais si il elle ils nous votre vos toutes tous sont être ne aux par",
    "spanish": "el la los las una de en es no que para por del al su sus lo se como más pero si"
    " está son todas todos este esta estas usted",
    "italian": "il la lo gli le una è non che di con del della delle dei al alla sono"
    " più ma se tutte tutti questo questa nel",
    "portuguese": "os um uma é não que de para com por do da dos das ao seu sua como mais mas"
    " são todas todos este esta você",
    "dutch": "de het een en niet is zijn voor op te dat deze aan als ook maar worden je"
    " jij uw alle bij naar om",
}
# Those of other languages: they show what a baseline is written in.
_OTHERS = {
    "polish": "i w z na do się nie to jest że jak o po co tak ale za od czy dla przez lub oraz jednym"
    " być tylko jeśli który która które ten ta te jego ich są pod przed bez a by tym tego",
    "czech": "a v se si na je že s z do o i to jako za by ale po pro k od jen ve jsou nebo podle"
    " však být který",
    "slovak": "a v sa na je že s z do o i to ako za by ale po pre k od len sú alebo podľa však byť ktorý",
    "slovenian": "in v se na je da s z za so ki pa kot po od tudi ali ne le če bi",
    "croatian": "i u se na je da s za od su koji kao ali ne ili po što samo bi kako ako",
    "hungarian": "a az és hogy nem is egy ez meg csak de van mint vagy ha ki el be már volt kell egyik"
    " legyen",
    "romanian": "și în de la cu pe nu este o să un din care pentru mai sau dacă fi ce au fost doar",
    "swedish": "och i att det som en på är av för med till den ett inte eller om har de ska bara var kan du",
    "danish": "og i at det som en på er af for med til den et ikke eller om har de skal kun var kan du der",
    "norwegian": "og i at det som en på er av for med til den et ikke eller om har de skal bare var kan du",
    "finnish": "ja on ei se että joka mutta tai kun niin vain myös ovat jos sen voi ole yhdellä",
    "estonian": "ja on ei see et mis aga või kui nii ainult ka oma ühe",
    "turkish": "ve bir bu için ile de da mi çok daha gibi ama veya ne olarak her sadece değil olan",
    "indonesian": "yang dan di ke dari untuk dengan ini itu tidak adalah pada atau jika satu hanya dalam"
    " akan anda harus saja oleh",
    "tagalog": "ang ng sa na mga ay at hindi ito kung para isang lamang ba lang",
    "swahili": "na ya wa kwa ni za katika kama au la hii hiyo tu moja",
    "catalan": "el la els les de i en un una que per amb no és del als o si només aquest aquesta",
    "lithuanian": "ir yra į su kad iš ne tai bet ar jei kaip tik vienu",
    "latvian": "un ir ar no uz ka par kas bet vai ja tikai vienu",
    "albanian": "dhe në të një me për që është nga si ose jo nëse por vetëm",
    "basque": "eta da ez du bat edo hau batez bakarrik ere baina",
    "irish": "agus na le ar sa nó ach má amháin ní",
    "uzbek": "va bilan uchun bu bitta yoki emas ham faqat",
    "hindi": "ki ka ke ko mein ek aur hai nahi kya karo",  # in Latin letters
    "vietnamese": "và của là có được trong cho không với các một này đó hãy bạn chỉ hoặc nếu bằng",
}
FUNCTION_WORDS = {name: frozenset(text.split()) for name, text in _LANGUAGES.items()}
_OTHER_WORDS = {name: frozenset(text.split()) for name, text in _OTHERS.items()}
SMALL_WORDS = frozenset().union(*FUNCTION_WORDS.values())
_ENGLISH = FUNCTION_WORDS["english"]
# Words of English instructions that the other languages do not have. A short sentence such as "Be
# brief." has too few function words.
_INSTRUCTIONS = """\
brief short clear clearly careful carefully think step steps answer answers word words read write
review please always never keep give provide explain choose look whole first before after each every
one two following given make sure concise concisely polite briefly"""
_ENGLISH_WORDS = _ENGLISH | frozenset(_INSTRUCTIONS.split())
# English words that are function words of another language too, such as "do" in Polish.
_SHARED = frozenset({"a", "i"}).union(
    *(small for name, small in FUNCTION_WORDS.items() if name != "english"), *_OTHER_WORDS.values()
)

# Words of prompts, for a baseline without any function word of its list. None is English.
_HINTS = {
    "german": "wie bitte antworte antworten wort wörtern eines jede diese dieser dieses klassifiziere"
    " klassifizieren bewerte bewerten gib nenne nennen kurz satz nachricht nachrichten"
    " stimmung ordne schreibe",
    "spanish": "clasifica clasifique responde responda respuesta palabra palabras sentimiento mensaje"
    " mensajes texto breve sé reseña reseñas opinión",
    "french": "classez classifiez réponds répondez mot mots texte résumez décris décrivez soyez",
    "italian": "classifica classificare rispondi parola parole recensione recensioni sentimento testo"
    " riassumi sii",
    "portuguese": "classifique responda palavra palavras sentimento mensagem mensagens avaliação resuma seja",
    "dutch": "classificeer antwoord woord woorden beoordeel bericht berichten wees kort",
    "polish": "klasyfikuj sklasyfikuj odpowiedz napisz jedno slowo słowo opinie opinia wiadomość określ",
    "swedish": "klassificera svara ord recensionen recension meddelandet",
    "danish": "klassificer besked anmeldelsen anmeldelse",
    "norwegian": "klassifiser meldingen anmeldelsen",
    "finnish": "luokittele vastaa sana arvostelu viesti",
    "romanian": "clasifica raspunde cuvant recenzie mesajul",
    "turkish": "siniflandir cevapla kelime yorum yorumu mesaj yorumun duygusunu belirle metni sınıflandır",
    "czech": "klasifikuj slovem recenze zpráva",
    "indonesian": "klasifikasikan jawab kata ulasan pesan tentukan",
    "catalan": "respon paraula ressenya missatge",
    "hungarian": "válaszolj szóval osztályozd",
    "vietnamese": "phân loại trả lời",
}
_HINT_WORDS = {name: frozenset(text.split()) - _ENGLISH for name, text in _HINTS.items()}

# Letters beyond a to z of the languages above, and English words that have some.
_LETTERS = {
    "english": "", "german": "äöüß", "french": "àâæçéèêëîïôœùûüÿ", "spanish": "áéíñóúü",
    "italian": "àèéìòù", "portuguese": "áâãàçéêíóôõú", "dutch": "éëïóöü",
}  # fmt: skip
_LOANS = """\
café cafés naïve résumé résumés jalapeño fiancé fiancée cliché clichés façade voilà crème brûlée
entrée décor pokémon señor señora piñata über déjà touché émigré émigrés rosé façades exposé soufflé
tête"""
_LOANWORDS = frozenset(_LOANS.split())
# Function characters of Chinese that Japanese does not write alone.
_CHINESE = frozenset(
    "的了是这那请们吗呢吧你您她很和跟把被让给么个对没还读评论决时间应该说话问题从样两为发现词语单择类标签认确图实"
)
MIN_DRIFT_WORDS = 2  # new function words that make another language
MIN_SENTENCE_WORDS = 2  # of a sentence in another script


def find_drift(candidate: Prompt, baseline: Prompt, answers: Iterable[str] = ()) -> str:
    """Return a violation where the candidate has words of another language or script than before.

    `answers` may be written although they are in another script.
    """
    text, base = candidate.text, baseline.text
    known = _find_scripts(base)
    if not known.isdisjoint(_JAPANESE[:2]):
        known = known.union(_JAPANESE)
    if new := _find_scripts(text) - known:
        return f"letters of another script: {min(new).lower()}"
    return _find_foreign_words(text, base) or _find_foreign_sentence(candidate, baseline, answers)


def name_languages(prompt: Prompt) -> tuple[str, ...]:
    """Return the languages of a prompt, or its main script where that is not Latin; () if unknown.

    >>> name_languages(Prompt("Ordne den Satz ein und sei kurz."))
    ('german',)
    >>> name_languages(Prompt("Определи тональность отзыва."))
    ('cyrillic',)
    """
    text = prompt.text
    if set(_JAPANESE[:2]) & _find_scripts(text):
        return ("japanese",)
    if script := _find_main_script(text):
        return ({"CJK": "chinese", "HANGUL": "korean"}.get(script, script.lower()),)
    own = sorted(_find_own(_list_words(text)))
    return tuple(own) if own != ["other"] else ("not english",)


def _find_foreign_words(text: str, base: str) -> str:
    """Return a violation where new function words belong only to another language."""
    seen, before = _list_words(text), _list_words(base)
    if set(_JAPANESE[:2]) & _find_scripts(base):
        chars = sorted(_CHINESE.intersection(text) - set(base))
        return f"another language: chinese ({''.join(chars[:3])})" if len(chars) >= MIN_DRIFT_WORDS else ""
    if not before:
        return ""
    foreign = _find_main_script(base) and len(_ENGLISH & before) < MIN_DRIFT_WORDS
    own = frozenset[str]() if foreign else _find_own(before)
    if not own and not foreign:
        return ""
    words = {**_OTHER_WORDS, **FUNCTION_WORDS}
    known = before.union(*(words[name] for name in own if name in words))
    if "other" in own:
        known |= frozenset().union(*_OTHER_WORDS.values()) - _ENGLISH
    for name, small in FUNCTION_WORDS.items():
        if name not in own and len(new := (small & seen) - known) >= MIN_DRIFT_WORDS:
            return f"another language: {name} ({', '.join(sorted(new)[:3])})"
    if "english" not in own and len(new := (_ENGLISH_WORDS & seen) - known) >= MIN_DRIFT_WORDS:
        return f"another language: english ({', '.join(sorted(new)[:3])})"
    return ""


@lru_cache(maxsize=256)
def _find_own(words: frozenset[str]) -> frozenset[str]:
    """Return the languages of a Latin text: those with the most function words in it.

    Without any function word, its letters exclude languages. "other" stands for a language without
    a list; an empty set means that nothing is known.
    """
    odd = {word for word in words if not word.isascii()} - _LOANWORDS
    odd = {word for word in odd if unicodedata.name(word[0], "").startswith("LATIN")}
    counts = {name: len(small & words) for name, small in FUNCTION_WORDS.items()}
    counts |= {name: len((small - _ENGLISH) & words) for name, small in _OTHER_WORDS.items()}
    if odd:
        counts["english"] = len((_ENGLISH - _SHARED) & words)
    most = max(counts.values())
    if most:
        return frozenset(name for name, count in counts.items() if count == most)
    hints = {name: len(some & words) for name, some in _HINT_WORDS.items()}
    if top := max(hints.values()):
        return frozenset(name for name, count in hints.items() if count == top)
    if not odd:
        return frozenset()
    letters = {char for word in odd for char in word if not char.isascii()}
    possible = {name for name, all_letters in _LETTERS.items() if letters <= set(all_letters)}
    return frozenset(possible | {"other"})


def _find_foreign_sentence(candidate: Prompt, baseline: Prompt, answers: Iterable[str]) -> str:
    """Return a violation for a new Latin sentence in a prompt of another script."""
    if not _find_main_script(baseline.text):
        return ""
    before = _list_words(baseline.text) | _list_words(" ".join(answers))
    for start, stop in find_sentences(candidate):
        text = candidate.text[start:stop]
        letters = [char for char in text if char.isalpha()]
        latin = sum(_get_script(char) == "LATIN" for char in letters)
        new = [w for w in split_words(text) if w not in before and _get_script(w[0]) == "LATIN"]
        if 2 * latin > len(letters) and len(new) >= MIN_SENTENCE_WORDS:
            return f"another language: a sentence in Latin letters ({' '.join(new[:3])})"
    return ""


@lru_cache(maxsize=256)
def _list_words(text: str) -> frozenset[str]:
    return frozenset(split_words(text))


# --- scripts

# Japanese mixes three scripts: where a text has one of the first two, all three are allowed.
_JAPANESE = ("HIRAGANA", "KATAKANA", "CJK")

# First words of Unicode names that are no scripts of their own, and the scripts they belong to.
_SCRIPT = {
    "FULLWIDTH": "LATIN",
    "FEMININE": "LATIN",
    "MASCULINE": "LATIN",
    "MICRO": "LATIN",
    "KATAKANA-HIRAGANA": "KATAKANA",
    "HALFWIDTH": "KATAKANA",
    "IDEOGRAPHIC": "CJK",
    "MODIFIER": "LATIN",
}


@lru_cache(maxsize=4096)
def _get_script(char: str) -> str:
    """Return the script of a letter, such as LATIN."""
    first = unicodedata.name(char, "UNKNOWN").split()[0]
    return _SCRIPT.get(first, first)


@lru_cache(maxsize=256)
def _find_scripts(text: str) -> frozenset[str]:
    letters = {char for char in text if char.isalpha()}
    scripts = {_get_script(char) for char in letters if not char.isascii()}
    return frozenset(scripts | {"LATIN"})  # prompts in every language have Latin words


@lru_cache(maxsize=256)
def _find_main_script(text: str) -> str:
    """Return the script of most letters where it is not Latin, else "". A Chinese letter counts twice."""
    scripts = [_get_script(char) for char in text if char.isalpha()]
    other = [script for script in scripts if script != "LATIN"]
    weight = 2 if set(other) & set(_JAPANESE) else 1  # a letter there is about half a word
    if weight * len(other) <= len(scripts) - len(other):
        return ""
    return max(sorted(set(other)), key=other.count)
