use chrono::{DateTime, FixedOffset, TimeZone, Utc};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2024, 3, 31, 12, 0, 0).unwrap()
}

fn utc() -> FixedOffset {
    FixedOffset::east_opt(0).unwrap()
}

fn parse(text: &str) -> Query {
    Query::parse(text, now(), utc()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str) -> usize {
    match Query::parse(text, now(), utc()) {
        Err(error) => {
            assert!(!error.message.is_empty());
            error.column
        }
        Ok(query) => panic!("{text} was read as {query}"),
    }
}

fn words(text: &str) -> Words {
    Words { words: text.split(' ').map(str::to_owned).collect(), prefix: false, spelled: Vec::new() }
}

fn text(t: &str) -> Query {
    Query::Term(Term::Text(words(t)))
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn term(query: &str) -> Term {
    match parse(query) {
        Query::Term(term) => term,
        other => panic!("{query} is {other:?}"),
    }
}

#[test]
fn words_side_by_side_must_all_match() {
    assert_eq!(parse("  Crème  brûlée "), Query::And(vec![text("creme"), text("brulee")]));
}

#[test]
fn a_phrase_keeps_its_words_together_and_so_does_an_address() {
    assert_eq!(parse(r#""big  Red-dog""#), text("big red dog"));
    assert_eq!(parse("bob@mail.example.com"), text("bob mail example com"));
    assert_eq!(parse("東京"), text("東 京"));
}

#[test]
fn a_star_at_the_end_of_a_word_asks_for_a_prefix() {
    let prefix = |w: &str| Words { words: words(w).words, prefix: true, spelled: Vec::new() };
    assert_eq!(term("invo*"), Term::Text(prefix("invo")));
    assert_eq!(term("example.co*"), Term::Text(prefix("example co")));
    assert_eq!(term("from:bo*"), Term::Field(Field::From, prefix("bo")));
    assert_eq!(term(r#""invo*""#), Term::Text(words("invo")));
    assert_eq!(term("in*vo"), Term::Text(words("in vo")));
}

#[test]
fn or_in_capitals_binds_tighter_than_side_by_side() {
    assert_eq!(parse("a b OR c"), Query::And(vec![text("a"), Query::Or(vec![text("b"), text("c")])]));
    assert_eq!(parse("a OR b OR c"), Query::Or(vec![text("a"), text("b"), text("c")]));
    assert_eq!(parse("a or b"), Query::And(vec![text("a"), text("or"), text("b")]));
    assert_eq!(parse("ORDER"), text("order"));
    assert_eq!(parse("(a b) OR c"), Query::Or(vec![Query::And(vec![text("a"), text("b")]), text("c")]));
}

#[test]
fn curly_brackets_are_a_group_of_alternatives() {
    assert_eq!(parse("{a b}"), parse("a OR b"));
    assert_eq!(parse("from:{a b} c"), parse("(from:a OR from:b) c"));
    assert_eq!(parse("{(a b) c}"), parse("(a b) OR c"));
}

#[test]
fn a_minus_excludes_a_word_a_phrase_a_field_or_a_group() {
    let not = |q: Query| Query::Not(Box::new(q));
    assert_eq!(parse("-a"), not(text("a")));
    assert_eq!(parse(r#"-"a b""#), not(text("a b")));
    assert_eq!(parse("-from:a"), not(parse("from:a")));
    assert_eq!(parse("-(a b)"), not(parse("a b")));
    assert_eq!(parse("-{a b}"), not(parse("a OR b")));
    assert_eq!(parse("-(-a)"), text("a"));
    assert_eq!(parse("e-mail"), text("e mail"));
}

#[test]
fn every_field_can_be_searched_alone_in_any_case() {
    for (query, field) in [
        ("from:bob", Field::From),
        ("TO:bob", Field::To),
        ("Cc:bob", Field::Cc),
        ("bcc:bob", Field::Bcc),
        ("subject:bob", Field::Subject),
        ("list:bob", Field::List),
        ("filename:bob", Field::Filename),
    ] {
        assert_eq!(term(query), Term::Field(field, words("bob")));
    }
    assert_eq!(term("from:example.com"), Term::Field(Field::From, words("example com")));
    assert_eq!(term(r#"subject:"re: hello""#), Term::Field(Field::Subject, words("re hello")));
}

#[test]
fn a_group_behind_an_operator_applies_it_to_each_value() {
    assert_eq!(parse("from:(a -b)"), parse("from:a -from:b"));
    assert_eq!(parse("subject:(a OR \"b c\")"), parse("subject:a OR subject:\"b c\""));
    assert_eq!(parse("is:(unread starred)"), parse("is:unread is:starred"));
    assert_eq!(parse("subject:(from:x)"), parse("subject:\"from x\""));
}

#[test]
fn in_takes_a_role_anywhere_or_a_mailbox() {
    assert_eq!(term("in:Inbox"), Term::In(Place::Role(Role::Inbox)));
    for (word, role) in [
        ("sent", Role::Sent),
        ("drafts", Role::Drafts),
        ("junk", Role::Junk),
        ("spam", Role::Junk),
        ("trash", Role::Trash),
        ("archive", Role::Archive),
        ("all", Role::All),
    ] {
        assert_eq!(term(&format!("in:{word}")), Term::In(Place::Role(role)));
    }
    assert_eq!(term("in:anywhere"), Term::In(Place::Anywhere));
    assert_eq!(term(r#"in:"Work/My Projects""#), Term::In(Place::Mailbox("Work/My Projects".into())));
    assert!(parse("a (b OR -in:trash)").mentions_in());
    assert!(!parse("a b").mentions_in());
}

#[test]
fn is_and_has_take_their_words() {
    for (word, status) in [
        ("unread", Status::Unread),
        ("READ", Status::Read),
        ("starred", Status::Starred),
        ("answered", Status::Answered),
        ("draft", Status::Draft),
    ] {
        assert_eq!(term(&format!("is:{word}")), Term::Is(status));
    }
    assert_eq!(term("has:attachment"), Term::HasAttachment);
}

#[test]
fn dates_are_days_in_the_zone_given_or_unix_seconds() {
    assert_eq!(term("after:2024-01-31"), Term::After(at(1_706_659_200)));
    assert_eq!(term("before:2024/1/31"), Term::Before(at(1_706_659_200)));
    assert_eq!(term("after:1706659201"), Term::After(at(1_706_659_201)));
    for (year, first) in [("2024", 1_704_067_200), ("1999", 915_148_800), ("9999", 253_370_764_800)] {
        assert_eq!(term(&format!("after:{year}")), Term::After(at(first)));
        assert_eq!(term(&format!("before:{year}")), Term::Before(at(first)));
    }
    assert_eq!(term("after:2024-02"), Term::After(at(1_706_745_600)));
    assert_eq!(term("before:2024/2"), Term::Before(at(1_706_745_600)));
    assert_eq!(term("after:20240"), Term::After(at(20_240)), "seconds");
    for bad in
        ["after:0999", "after:2024-13", "after:2024-", "after:2024-1-1-1", "after:-999", "before:2024/0"]
    {
        assert!(refused(bad) > 0, "{bad}");
    }
    let east = FixedOffset::east_opt(2 * 3600).unwrap();
    assert_eq!(
        Query::parse("after:2024-01-31", now(), east).unwrap(),
        Query::Term(Term::After(at(1_706_659_200 - 7200)))
    );
}

#[test]
fn ages_count_back_from_now() {
    let ago = |y, m, d| Utc.with_ymd_and_hms(y, m, d, 12, 0, 0).unwrap();
    assert_eq!(term("older_than:2d"), Term::Before(ago(2024, 3, 29)));
    assert_eq!(term("newer_than:1m"), Term::After(ago(2024, 2, 29)));
    assert_eq!(term("newer_than:1Y"), Term::After(ago(2023, 3, 31)));
    assert_eq!(term("newer_than:1w"), Term::After(ago(2024, 3, 24)));
    assert_eq!(term("newer_than:12h"), Term::After(Utc.with_ymd_and_hms(2024, 3, 31, 0, 0, 0).unwrap()));
}

#[test]
fn sizes_count_in_units_of_1024() {
    assert_eq!(term("larger:10M"), Term::Larger(10 << 20));
    assert_eq!(term("smaller:3kb"), Term::Smaller(3 << 10));
    assert_eq!(term("larger:2G"), Term::Larger(2 << 30));
    assert_eq!(term("larger:12345"), Term::Larger(12_345));
}

#[test]
fn ids_are_taken_as_they_are() {
    assert_eq!(term("rfc822msgid:<A.b+c@x>"), Term::MessageId("A.b+c@x".into()));
    assert_eq!(term("account:bob@example.com"), Term::Account("bob@example.com".into()));
    assert_eq!(
        term("thread:018F0000-0000-7000-8000-0000000000aB"),
        Term::Thread("018f0000-0000-7000-8000-0000000000ab".into())
    );
}

#[test]
fn an_unknown_operator_is_text_and_lone_punctuation_is_left_out() {
    assert_eq!(parse("https://example.com/x"), text("https example com x"));
    assert_eq!(parse("10:30"), text("10 30"));
    assert_eq!(parse("Smith & Sons - Ltd"), parse("smith sons ltd"));
    assert_eq!(parse("a OR &"), text("a"));
}

#[test]
fn an_error_names_its_column() {
    for (query, column) in [
        ("", 1),
        ("   ", 1),
        ("&&", 1),
        ("a OR", 3),
        ("OR a", 1),
        ("a OR OR b", 3),
        ("(a OR ) b", 4),
        ("é from:", 3),
        ("from: x", 1),
        ("(from:)", 2),
        ("from:\"\"", 6),
        ("from:&", 6),
        ("from:( )", 6),
        ("from:(&)", 7),
        ("a \"\"", 3),
        ("a \"b", 3),
        ("a (b", 3),
        ("a {b", 3),
        ("a b)", 4),
        ("(a}", 3),
        ("()", 1),
        ("is:open", 4),
        ("has:wings", 5),
        ("after:tomorrow", 7),
        ("after:2024-13-01", 7),
        ("before:24-1-1", 8),
        ("after:99999999999999", 7),
        ("older_than:2x", 12),
        ("older_than:d", 12),
        ("newer_than:99999y", 12),
        ("larger:big", 8),
        ("larger:-1", 8),
        ("larger:99999999999G", 8),
        ("thread:7", 8),
        ("a\0", 2),
        ("rfc822msgid:<>", 13),
    ] {
        assert_eq!(refused(query), column, "{query:?}");
    }
}

#[test]
fn depth_terms_and_length_are_bounded() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(parse(&nested(DEPTH_MAX)), text("a"));
    assert_eq!(refused(&nested(DEPTH_MAX + 1)), DEPTH_MAX + 1);
    assert_eq!(refused(&"-(".repeat(900)), 2 * DEPTH_MAX + 2);
    parse(&"a ".repeat(TERMS_MAX));
    assert_eq!(refused(&"a ".repeat(TERMS_MAX + 1)), 2 * TERMS_MAX + 1);
    parse(&"a".repeat(QUERY_MAX_CHARS));
    assert_eq!(refused(&"é".repeat(QUERY_MAX_CHARS + 1)), QUERY_MAX_CHARS + 1);
}

#[test]
fn the_answer_repeats_the_query_as_json() {
    assert_eq!(
        parse("from:bob -\"b c\" {in:inbox in:x is:read} after:0 larger:1K has:attachment").to_value(),
        json!({"type": "and", "terms": [
            {"type": "from", "words": ["bob"], "prefix": false},
            {"type": "not", "term": {"type": "text", "words": ["b", "c"], "prefix": false}},
            {"type": "or", "terms": [
                {"type": "in", "role": "inbox"},
                {"type": "in", "mailbox": "x"},
                {"type": "is", "value": "read"},
            ]},
            {"type": "after", "at": "1970-01-01T00:00:00Z"},
            {"type": "larger", "bytes": 1024},
            {"type": "has", "value": "attachment"},
        ]})
    );
}

#[test]
fn text_terms_become_conditions_on_the_index() {
    assert_eq!(to_tsquery_text(&term("example.co*")), "'example' <-> 'co':*");
    assert_eq!(to_tsquery_text(&term("from:bob@x")), "'f/bob' <-> 'f/x'");
    assert_eq!(to_tsquery_text(&term("filename:pdf")), "'n/pdf'");
    assert_eq!(to_tsquery_text(&term("Größe")), "('grosse' | 'groesse')");
    assert_eq!(to_tsquery_text(&term("subject:große-Äpf*")), "'s/grosse' <-> ('s/apf':* | 's/aepf':*)");
    assert_eq!(to_tsquery_text(&term("회의")), "'회' <-> '의'");
    assert_eq!(to_tsquery_text(&term("is:read")), "");
}

#[test]
fn the_necessary_condition_never_excludes_a_match() {
    let of = |query: &str| necessary_tsquery(&parse(query));
    assert_eq!(of("a is:read -b").as_deref(), Some("'a'"));
    assert_eq!(of("a b.c").as_deref(), Some("('a') & ('b' <-> 'c')"));
    assert_eq!(of("a (b OR c)").as_deref(), Some("('a') & (('b') | ('c'))"));
    assert_eq!(of("a OR is:read"), None);
    assert_eq!(of("-a"), None);
}

#[test]
fn a_snippet_marks_the_words_as_they_stand_in_the_text() {
    let q = parse("creme subject:nothing -hidden from:bob");
    assert_eq!(highlight("La Crème & <b>", &q, 80), "La <mark>Crème</mark> &amp; &lt;b&gt;");
    assert_eq!(highlight("hidden bob nothing", &q, 80), "hidden bob nothing");
    assert_eq!(highlight("a  Big\n\tRED dog", &parse("\"big red\""), 80), "a <mark>Big RED</mark> dog");
    assert_eq!(highlight("invoices in", &parse("invo*"), 80), "<mark>invoices</mark> in");
}

#[test]
fn a_snippet_shows_the_stretch_with_most_terms() {
    let body = format!("apple {} pear apple tail {}", "filler ".repeat(60), "end ".repeat(60));
    let shown = highlight(&body, &parse("apple pear"), 60);
    assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
    assert!(shown.contains("<mark>pear</mark> <mark>apple</mark> tail"), "{shown}");
    assert!(shown.replace("<mark>", "").replace("</mark>", "").chars().count() <= 62, "{shown}");
}

#[test]
fn a_snippet_without_a_match_is_the_beginning() {
    assert_eq!(highlight("one two three four", &parse("zzz"), 9), "one two…");
    assert_eq!(highlight("  ", &parse("a"), 9), "");
    assert_eq!(highlight("a\u{202e}b\u{7}c", &parse("zzz"), 9), "abc");
}

fn any_query() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zéßΣ東0-9*.@-]{1,6}",
        Just("OR".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("-(".to_owned()),
        "\"[a-z 東:*]{0,8}\"",
        "(from|to|SUBJECT|list|filename|in|account|rfc822msgid|zz):[a-z0-9.@]{0,5}",
        "(after|before):[0-9]{1,10}",
        "(after|before):20[0-9]{2}-0[1-9]-[0-2][1-8]",
        "(older_than|newer_than):[0-9]{1,3}[dmywh]",
        "(larger|smaller):[0-9]{1,4}[KMG]?",
        "is:(read|unread|starred|answered|draft)",
        "(from|subject|is|in):[({]",
        "-[a-z]{1,3}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.join(" "))
}

#[test]
fn seconds_are_printed_so_that_they_are_not_read_as_a_year() {
    for seconds in [-999, -1, 0, 7, 999, 1_000, 2_024, 9_999, 10_000, 1_700_000_000] {
        for query in [Term::After, Term::Before]
            .map(|of| Query::Term(of(DateTime::from_timestamp(seconds, 0).unwrap())))
        {
            let printed = query.to_string();
            assert_eq!(Query::parse(&printed, now(), utc()), Ok(query), "{printed}");
        }
    }
}

#[test]
fn umlauts_are_printed_so_that_both_spellings_are_found_again() {
    for query in
        ["größe", "Ä", "aä äe aeä", "münchen*", "subject:Übergrößen", "\"schöne neue möbel\"", "süß OR grün"]
    {
        let parsed = Query::parse(query, now(), utc()).unwrap();
        let printed = parsed.to_string();
        assert_eq!(Query::parse(&printed, now(), utc()), Ok(parsed), "{query}: {printed}");
    }
}

proptest! {
    #[test]
    fn anything_is_parsed_or_refused_with_a_column_inside(text in any_query()) {
        match Query::parse(&text, now(), utc()) {
            Err(error) => prop_assert!(error.column >= 1 && error.column <= text.chars().count().max(1)),
            Ok(query) => {
                let _value = query.to_value();
                let _necessary = necessary_tsquery(&query);
                let printed = query.to_string();
                if printed.chars().count() <= QUERY_MAX_CHARS {
                    prop_assert_eq!(Query::parse(&printed, now(), utc()), Ok(query), "{}", printed);
                }
            }
        }
    }

    #[test]
    fn a_snippet_is_bounded_escaped_and_balanced(body in any::<String>(), extra in "[a-c <&'\u{301}\n]{0,40}", max in 0usize..40) {
        let query = parse("a b* c \"a b\"");
        let html = highlight(&format!("{body}{extra}"), &query, max);
        prop_assert_eq!(html.matches("<mark>").count(), html.matches("</mark>").count());
        let plain = html.replace("<mark>", "").replace("</mark>", "");
        prop_assert!(!plain.contains(['<', '>', '"', '\'']));
        let shown = plain.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
        prop_assert!(shown.chars().count() <= max + 2, "{}", shown);
    }
}

#[test]
fn pictures_alone_are_a_query_and_beside_words_decoration() {
    let one = |words: &[&str]| {
        Query::Term(Term::Text(Words {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            prefix: false,
            spelled: Vec::new(),
        }))
    };
    for (query, words) in [
        ("🎉", &["🎉"][..]),
        ("\"🎉\"", &["🎉"]),
        ("❤\u{fe0f}", &["❤"]),
        ("👍🏽", &["👍"]),
        ("👩\u{200d}💻", &["👩\u{200d}💻"]),
        ("🇩🇪", &["🇩🇪"]),
        ("🎉🎊", &["🎉", "🎊"]),
        ("☎", &["☎"]),
    ] {
        assert_eq!(parse(query), one(words), "{query}");
    }
    assert_eq!(parse("party🎉!"), text("party"), "one term");
    assert_eq!(parse("party 🎉"), Query::And(vec![text("party"), one(&["🎉"])]), "two of them");
    assert_eq!(
        term("subject:🎉"),
        Term::Field(Field::Subject, Words { words: vec!["🎉".into()], prefix: false, spelled: Vec::new() })
    );
    assert_eq!(to_tsquery_text(&term("🎉🎊")), "'🎉' & '🎊'", "in any order");
    assert_eq!(to_tsquery_text(&term("subject:🎉")), "'s/🎉'");
}
