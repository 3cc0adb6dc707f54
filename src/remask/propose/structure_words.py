"""Names by which prompts mark the parts of examples and of answers, in the commonest languages."""

_INPUTS = """\
input inputs question q text review sentence message email mail query user human customer client
document passage
premise tweet comment article source problem statement paragraph ticket
utterance complaint snippet original english transcript abstract headline post item
eingabe frage nutzer kunde nachricht satz rezension kommentar beitrag
entrada pregunta texto mensaje usuario cliente reseña oración frase
entrée entree question texte utilisateur avis phrase
domanda testo utente messaggio recensione ingresso
pergunta mensagem usuário avaliação
wejście pytanie tekst wiadomość opinia użytkownik
вход вопрос текст сообщение пользователь отзыв ввод
输入 问题 问 文本 用户 评论 句子 输入文本 題目 题目 原文 消息
入力 質問 テキスト ユーザー 文 レビュー 入力文
입력 질문 텍스트 사용자 리뷰 문장
इनपुट प्रश्न पाठ समीक्षा वाक्य السؤال النص سؤال مدخل girdi soru metin invoer vraag tekst"""

_OUTPUTS = """\
output outputs answer a label labels sentiment assistant ai bot agent model response reply
completion category class
classification result target translation summary solution verdict hypothesis score rating action
observation
final answer final_answer reasoning thought thoughts rationale explanation expected correct answer
prediction intent
topic emotion decision relation stance language conclusion your answer best answer output label tag
tags type entities entity
ausgabe antwort ergebnis kategorie stimmung klasse bewertung endgültige antwort
salida respuesta etiqueta resultado sentimiento clase categoría respuesta final
sortie réponse étiquette résultat catégorie classe réponse finale
risposta etichetta uscita risultato categoria sentimento
saída resposta rótulo resposta final
wyjście odpowiedź etykieta wynik kategoria
выход ответ метка результат категория вывод
输出 答案 答 回答 标签 类别 助手 结果 情感 分类 最终答案 解析
出力 回答 答え ラベル 分類 感情 結果
출력 답변 정답 라벨 분류 감정 결과
आउटपुट उत्तर लेबल भावना الجواب الإجابة جواب çıktı cevap etiket uitvoer antwoord"""

_PHRASES = {"final answer", "correct answer", "your answer", "best answer", "output label"}
_PHRASES |= {"endgültige antwort", "respuesta final", "réponse finale", "resposta final"}
INPUT_NAMES = frozenset(_INPUTS.split())
# "final" alone is no name; the phrases that begin with it are.
OUTPUT_NAMES = frozenset(_OUTPUTS.split()) | _PHRASES
OUTPUT_NAMES -= {"final", "correct", "your", "best", "endgültige", "finale"}

# Names of instructions: what stands behind them stays editable.
_INSTRUCTIONS = """\
task role goal tone note notes important style rule rules instruction instructions objective persona
audience length format constraints hint warning tip remember step aufgabe rolle ziel hinweis regeln
tarea tâche"""
INSTRUCTION_NAMES = frozenset(_INSTRUCTIONS.split())

EXAMPLE_WORDS = (
    "examples?|demonstrations?|shots?|samples?|exemplars?|beispiele?|ejemplos?|exemples?|esempio"
    "|esempi|exemplos?|voorbeeld(?:en)?|przykłady?|примеры?|примери|příklady?|példák?|örnek(?:ler)?"
    "|contoh|ví dụ|exempel|eksempler?|示例|例子|样例|範例|举例|例|예시|예|उदाहरण|مثال|أمثلة"
)
FORMAT_WORDS = (
    "format\\w*|(?:the|this|following) form|template|schema|structure|layout|pattern|exactly"
    "|as follows|like this|(?:two|three|four|five|\\d) lines|these fields|formato|plantilla|esquema"
    "|forme|modèle|gliederung|vorlage|zeilen?|línea|ligne|linea|szablon|формат\\w*|biçim\\w*"
)

# Tags whose content is an example, a text of a user or an answer, never an instruction.
_CONTAINERS = """\
example examples input output question answer q a user assistant human ai query response reply label
labels json schema xml yaml format template table code sql tool tools function functions tool_call
tool_calls think thinking thought reasoning scratchpad result results document documents data
message text review sentence beispiel eingabe ausgabe ejemplo exemple pre td th tr thead tbody"""
CONTAINER_TAGS = frozenset(_CONTAINERS.split())
