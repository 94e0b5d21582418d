//! Words, subjects and paragraphs.

use super::random::Random;

const COMMON: &str = "the of and to in a is that for it as was with be by on not this are from at which but have an \
    you were one all we can has there been if more when will would who so no meeting project report invoice please \
    thanks order account team update review budget contract schedule customer release server deploy question attached \
    delivery payment issue ticket";

pub(crate) const LATIN: [&str; 10] =
    ["Ärger", "déjà", "naïve", "señor", "façade", "größe", "über", "élève", "crème", "mañana"];
const CYRILLIC: [&str; 10] =
    ["письмо", "договор", "отчёт", "встреча", "завтра", "счёт", "спасибо", "привет", "проект", "оплата"];
const JAPANESE: [&str; 9] =
    ["会議", "資料", "予定", "お世話", "メール", "請求書", "確認", "返信", "ありがとう"];
const SIMPLIFIED: [&str; 8] = ["会议", "文件", "项目", "谢谢", "发票", "附件", "明天", "通知"];
const TRADITIONAL: [&str; 8] = ["會議", "文件", "專案", "謝謝", "發票", "附件", "明天", "通知"];
const KOREAN: [&str; 8] = ["회의", "자료", "일정", "감사", "메일", "청구서", "확인", "답장"];
const GREEK: [&str; 6] = ["συνάντηση", "έργο", "τιμολόγιο", "ευχαριστώ", "αύριο", "έγγραφο"];
const HEBREW: [&str; 6] = ["פגישה", "חשבונית", "תודה", "מחר", "מסמך", "פרויקט"];
const ARABIC: [&str; 6] = ["اجتماع", "فاتورة", "شكرا", "غدا", "وثيقة", "مشروع"];
const SYMBOLS: [&str; 5] = ["🙂", "✓", "👩‍💻", "€100", "“quoted”"];

const VOCABULARY: usize = 12_000;

/// A set of foreign words that are strewn into a text.
#[derive(Clone, Copy)]
pub(crate) struct Script(&'static [&'static str]);

impl Script {
    pub(crate) const LATIN: Self = Self(&LATIN);
    pub(crate) const CYRILLIC: Self = Self(&CYRILLIC);
    pub(crate) const JAPANESE: Self = Self(&JAPANESE);
    pub(crate) const SIMPLIFIED: Self = Self(&SIMPLIFIED);
    pub(crate) const TRADITIONAL: Self = Self(&TRADITIONAL);
    pub(crate) const KOREAN: Self = Self(&KOREAN);
    pub(crate) const GREEK: Self = Self(&GREEK);
    /// What UTF-8 mail is strewn with.
    pub(crate) const ALL: [Self; 10] = [
        Self::LATIN,
        Self::CYRILLIC,
        Self::JAPANESE,
        Self::SIMPLIFIED,
        Self::TRADITIONAL,
        Self::KOREAN,
        Self::GREEK,
        Self(&HEBREW),
        Self(&ARABIC),
        Self(&SYMBOLS),
    ];

    fn word(self, random: &mut Random) -> &'static str {
        random.pick_early::<&str>(self.0)
    }
}

/// A vocabulary in order of frequency, real words first.
pub(crate) struct Words {
    all: Vec<String>,
    common: usize,
}

impl Words {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut all: Vec<String> = COMMON.split_whitespace().map(str::to_owned).collect();
        let common = all.len();
        let onsets = [
            "b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "ch", "sh", "tr",
            "st",
        ];
        let vowels = ["a", "e", "i", "o", "u", "ai", "ou"];
        while all.len() < VOCABULARY {
            let syllables = random.pick(&[2, 2, 3, 3, 4]);
            all.push(
                (0..syllables).map(|_| random.pick(&onsets).to_owned() + random.pick(&vowels)).collect(),
            );
        }
        Self { all, common }
    }

    fn word(&self, random: &mut Random) -> &str {
        random.pick_early::<String>(&self.all)
    }

    /// A real word.
    pub(crate) fn common(&self, random: &mut Random) -> &str {
        random.pick_early::<String>(self.all.get(..self.common).unwrap_or(&self.all))
    }

    /// An invented word, fit for a name or a domain.
    pub(crate) fn rare(&self, random: &mut Random) -> &str {
        random.pick_early::<String>(self.all.get(self.common..).unwrap_or(&self.all))
    }

    pub(crate) fn subject(&self, random: &mut Random, script: Option<Script>) -> String {
        let count = 2 + random.below(7);
        let mut words: Vec<&str> = (0..count).map(|_| self.word(random)).collect();
        words.extend(script.map(|script| script.word(random)));
        let subject = capital(&words.join(" "));
        if random.chance(0.1) { format!("[{}-list] {subject}", self.common(random)) } else { subject }
    }

    /// About `bytes` of prose in paragraphs, lines under 78 columns, CRLF.
    pub(crate) fn prose(&self, random: &mut Random, bytes: usize, script: Option<Script>) -> String {
        let mut prose = String::with_capacity(bytes + 100);
        let (mut column, mut count) = (0, 0);
        while prose.len() < bytes {
            let word = match script {
                Some(script) if random.chance(0.08) => script.word(random),
                _ => self.word(random),
            };
            if count % 130 == 129 {
                prose.push_str("\r\n\r\n");
                column = 0;
            } else if column + word.len() > 72 {
                prose.push_str("\r\n");
                column = 0;
            } else if column > 0 {
                prose.push(' ');
            }
            match count % 13 {
                0 => prose.push_str(&capital(word)),
                12 => prose.extend([word, "."]),
                _ => prose.push_str(word),
            }
            column += word.len() + 1;
            count += 1;
        }
        prose.push_str("\r\n");
        prose
    }
}

/// The word with a capital letter first.
pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
