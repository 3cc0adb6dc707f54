"""No candidate changes the language of the prompt."""

import doctest

import pytest

from remask.prompt import Prompt
from remask.propose import languages
from remask.propose.guard import find_violation
from remask.propose.languages import name_languages

ENGLISH = "Read the whole review carefully before you decide."

# Baselines, and an edit in their own language.
PROMPTS = {
    "请判断评论的情感倾向。只回答“积极”或“消极”，不要解释。": "请仔细阅读整条评论，然后再判断。",
    "以 JSON 回答。": "用 JSON 写。",
    "レビューの感情を分類してください。一語だけで答えてください。": "レビュー全体を読んでから決めます。",
    "리뷰의 감정을 분류하세요.": "리뷰를 끝까지 읽으세요.",
    "Определи тональность отзыва. Ответь одним словом.": "Прочитай отзыв до конца.",
    "Καθόρισε το συναίσθημα.": "Διάβασε όλο το κείμενο.",
    "समीक्षा की भावना बताओ।": "पूरी समीक्षा पढ़ो।",
    "حدد مشاعر المراجعة.": "اقرأ المراجعة كلها.",
    "Określ wydźwięk opinii. Odpowiedz jednym słowem.": "Przeczytaj całą opinię i odpowiedz tylko na to.",
    "Přečti recenzi. Odpověz jedním slovem.": "Rozhodni se, až si ji přečteš celou.",
    "Klassificera recensionen på svenska.": "Läs den och var inte för snäll mot den som skriver.",
    "Yorumun duygusunu belirle. Tek kelimeyle yanıt ver.": "Önce bütün yorumu oku ve sonra karar ver.",
    "Tentukan sentimen ulasan. Jawab dengan satu kata.": "Baca ulasan itu dan tentukan yang tepat.",
    "Hãy phân loại cảm xúc của đánh giá.": "Hãy đọc hết và chỉ trả lời một từ.",
    "Osztályozd a véleményt. Egy szóval válaszolj.": "Olvasd el az egész szöveget, és ne siess.",
    "Klassifiziere die Stimmung.": "Lies die Nachricht und sei nicht zu streng.",
    "Klasyfikuj opinie. Napisz jedno slowo.": "Napisz tylko to, co w niej jest.",
    "Classifica recensioni.": "Leggi tutto il testo e non essere severo.",
    "Prüfe Kommentare.": "Lies den Text und sei nicht zu streng.",
    "Clasifica reseñas.": "Lee el texto y no seas muy estricto con los clientes.",
    "Résumez précisément.": "Lisez le texte et soyez bref pour vos clients.",
    "Classifica a avaliação.": "Leia o texto e não seja muito duro com os clientes.",
}


@pytest.mark.parametrize("base", PROMPTS)
def test_guard_refuses_english_in_a_prompt_of_another_language(base: str) -> None:
    reason = find_violation(Prompt(f"{base} {ENGLISH}"), Prompt(base), frozenset())
    assert reason.startswith("another language"), reason
    assert "english" not in name_languages(Prompt(base)) and name_languages(Prompt(base))


@pytest.mark.parametrize("base", PROMPTS)
@pytest.mark.parametrize("short", ["Think step by step.", "Keep it short and clear."])
def test_guard_refuses_a_short_english_sentence_in_a_prompt_of_another_language(
    base: str, short: str
) -> None:
    reason = find_violation(Prompt(f"{base} {short}"), Prompt(base), frozenset())
    assert reason.startswith("another language"), reason


@pytest.mark.parametrize(
    "base",
    ["Përcakto ndjenjën e komentit. Përgjigju me një fjalë.", "Yorumun duygusunu belirle.",
     "Aimsigh meon an léirmheasa. Freagair le focal amháin.", "Zehaztu sentimendua. Erantzun hitz batez.",
     "Review ki bhavana batao. Ek shabd mein jawab do.", "Sharhning kayfiyatini aniqlang. Bitta yoki ikki."],
)  # fmt: skip
def test_guard_knows_the_function_words_of_further_languages(base: str) -> None:
    reason = find_violation(Prompt(f"{base} {ENGLISH}"), Prompt(base), frozenset())
    assert reason.startswith("another language: english"), reason


@pytest.mark.parametrize(("base", "own"), PROMPTS.items())
def test_guard_allows_the_own_language(base: str, own: str) -> None:
    assert find_violation(Prompt(f"{base} {own}"), Prompt(base), frozenset()) == ""


@pytest.mark.parametrize(
    "base",
    ["Classify sentiment.", "Rate café reviews.", "Describe it.", "Classify the review. 请用中文回答。",
     "Say 是 or 否.",
     "Translate the text to Polish: Określ wydźwięk opinii.",
     "Label the men in the São Paulo office for me."],
)  # fmt: skip
def test_guard_allows_english_in_an_english_prompt(base: str) -> None:
    assert find_violation(Prompt(f"{base} {ENGLISH}"), Prompt(base), frozenset()) == ""


def test_guard_refuses_a_sentence_of_content_words_in_another_script() -> None:
    base = Prompt("请判断评论。")
    assert "Latin letters" in find_violation(Prompt("请判断评论。Judge carefully."), base, frozenset())
    assert find_violation(Prompt("请判断评论。Negative。"), base, frozenset()) == ""
    said = Prompt("请判断评论。Very negative。")
    assert "Latin letters" in find_violation(said, base, frozenset())
    assert find_violation(said, base, frozenset(), answers=("very negative",)) == ""


def test_guard_refuses_chinese_in_a_japanese_prompt() -> None:
    base = Prompt("レビューを分類してください。")
    for written in ("请你判断这个评论的情感。", "请先阅读整条评论再决定。"):
        assert "chinese" in find_violation(Prompt(base.text + written), base, frozenset())


@pytest.mark.parametrize("end", [".。", "。。", "..", "। ।", "।."])
def test_guard_refuses_two_full_stops(end: str) -> None:
    base = Prompt("Rate the review" if "." in end[0] else "भावना बताओ")
    after = Prompt(base.text + end)
    assert find_violation(after, base, frozenset()).startswith(("two full stops", "letters"))
    assert find_violation(after, after, frozenset()) == ""


def test_languages_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(languages)
    assert found.attempted and not found.failed
