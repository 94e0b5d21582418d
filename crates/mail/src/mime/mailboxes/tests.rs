use proptest::prelude::*;

use super::super::charset::Fallback;
use super::read;

fn people(field: &str) -> Vec<(Option<String>, String)> {
    read(field.as_bytes(), Fallback::default()).into_iter().map(|a| (a.name, a.address)).collect()
}

fn expect(field: &str, wanted: &[(&str, &str)]) {
    let some = |n: &str| Some(n.to_owned()).filter(|n| !n.is_empty());
    let wanted: Vec<_> = wanted.iter().map(|(n, a)| (some(n), (*a).to_owned())).collect();
    assert_eq!(people(field), wanted, "{field}");
}

#[test]
fn lists_as_they_should_be() {
    expect("ann@x.example", &[("", "ann@x.example")]);
    expect(
        "Ann <ann@x.example>, \"B, C\" <b@c.example>",
        &[("Ann", "ann@x.example"), ("B, C", "b@c.example")],
    );
    expect("ann@x.example (Ann Lee)", &[("Ann Lee", "ann@x.example")]);
    expect(
        "team: d@e.example, Fay <f@g.example>;, h@i.example",
        &[("", "d@e.example"), ("Fay", "f@g.example"), ("", "h@i.example")],
    );
    expect("undisclosed-recipients:;", &[]);
    expect("Undisclosed recipients:", &[]);
    expect("\"A \\\"B\\\" C\" <a@x>", &[("A \"B\" C", "a@x")]);
    expect("=?utf-8?Q?J=C3=BCrgen?= <j@a.example>", &[("Jürgen", "j@a.example")]);
    expect(
        "=?utf-8?Q?J=C3=BC?=\r\n =?utf-8?Q?rgen?= Meier <j@a.example>",
        &[("Jürgen Meier", "j@a.example")],
    );
    expect("\"=?utf-8?Q?J=C3=BCrgen?=\" <j@a.example>", &[("Jürgen", "j@a.example")]);
    expect(
        "Ann <a@[192.0.2.1]>, b@[IPv6:2001:db8::1]",
        &[("Ann", "a@[192.0.2.1]"), ("", "b@[IPv6:2001:db8::1]")],
    );
    expect("jörg@exämple.example", &[("", "jörg@exämple.example")]);
    expect("", &[]);
    expect(" , ,, ", &[]);
}

#[test]
fn names_keep_their_words_and_blanks() {
    expect("Robert \"Bob\" Smith <b@x>", &[("Robert Bob Smith", "b@x")]);
    expect("\"Bob\" Smith <b@x>", &[("Bob Smith", "b@x")]);
    expect("J. R. \"Bob\" Dobbs <b@x>", &[("J. R. Bob Dobbs", "b@x")]);
    expect("Ann\r\n  Lee <a@x>", &[("Ann Lee", "a@x")]);
    expect("John @ Home <j@x>", &[("John @ Home", "j@x")]);
    expect("Support: Team <s@x>", &[("Support: Team", "s@x")]);
    expect("[list] Ann <a@x>", &[("[list] Ann", "a@x")]);
    expect("Ann (work) <a@x>", &[("Ann", "a@x")]);
    expect("(Ann) <a@x>", &[("Ann", "a@x")]);
    expect("<a@x> (Ann (at) work)", &[("Ann (at) work", "a@x")]);
    expect("O'Neil <o@x>", &[("O'Neil", "o@x")]);
    expect("Smith, Bob <b@x>", &[("Smith, Bob", "b@x")]);
    expect("=?utf-8?Q?Smith,_Bob?= <b@x>", &[("Smith, Bob", "b@x")]);
    expect("=?utf-8?Q?=22Smith,_Bob=22?= <b@x>", &[("Smith, Bob", "b@x")]);
    expect("=?utf-8?Q?Smith=2C_Bob?= <b@x>", &[("Smith, Bob", "b@x")]);
}

#[test]
fn a_forgotten_comma_separates_all_the_same() {
    expect("Ann <a@x> Ben <b@x>", &[("Ann", "a@x"), ("Ben", "b@x")]);
    expect("<a@x><b@x>", &[("", "a@x"), ("", "b@x")]);
    expect("\"Ann\" <a@x> \"Ben\" <b@x>, c@x", &[("Ann", "a@x"), ("Ben", "b@x"), ("", "c@x")]);
    expect("a@x b@x", &[("", "a@x"), ("", "b@x")]);
    expect("a@x; b@x; c@x", &[("", "a@x"), ("", "b@x"), ("", "c@x")]);
    expect("Ann <a@x>; Ben <b@x>", &[("Ann", "a@x"), ("Ben", "b@x")]);
    expect("Ann <a@x> and more", &[("Ann", "a@x")]);
}

#[test]
fn addresses_lose_what_is_not_theirs() {
    expect("\"jo hn\"@x", &[("", "\"jo hn\"@x")]);
    expect("<\"jo hn\"@x>", &[("", "\"jo hn\"@x")]);
    expect("John <\"jo, hn\"@x>", &[("John", "\"jo, hn\"@x")]);
    expect("\"john\"@x", &[("", "john@x")]);
    expect("ann(work)@x", &[("", "ann@x")]);
    expect("ann@(work)x", &[("", "ann@x")]);
    expect("Ann <ann(work)@x>", &[("Ann", "ann@x")]);
    expect("<@a.example,@b.example:ann@x>", &[("", "ann@x")]);
    expect("Ann <@a.example:ann@x>, b@x", &[("Ann", "ann@x"), ("", "b@x")]);
    expect("ann @ x . example", &[("", "ann@x.example")]);
    expect("Ann < ann @ x . example >", &[("Ann", "ann@x.example")]);
    expect("ann . lee@x.example, b@x", &[("", "ann.lee@x.example"), ("", "b@x")]);
    expect("<<a@x>>", &[("", "a@x")]);
    expect("Ann <<a@x>>, b@x", &[("Ann", "a@x"), ("", "b@x")]);
    expect("<Ann <a@x>>", &[("Ann", "a@x")]);
    expect("Ann a@x.example", &[("Ann", "a@x.example")]);
    expect("a@x.example Ann", &[("Ann", "a@x.example")]);
    expect("mailto:a@x", &[("", "a@x")]);
    expect("<mailto:a@x>", &[("", "a@x")]);
    expect("Ann <a@x., b@x", &[("Ann", "a@x"), ("", "b@x")]);
}

#[test]
fn an_entry_in_one_encoded_word_or_in_quotes_is_read_again() {
    expect("=?utf-8?Q?Ann_<a@x.example>?=", &[("Ann", "a@x.example")]);
    expect("=?utf-8?Q?J=C3=BCrgen_=3Cj=40x.example=3E?=", &[("Jürgen", "j@x.example")]);
    expect("=?utf-8?B?QW5uIDxhQHguZXhhbXBsZT4=?=", &[("Ann", "a@x.example")]);
    expect("=?utf-8?Q?a=40x.example?=", &[("", "a@x.example")]);
    expect("Ann <=?utf-8?Q?a=40x.example?=>", &[("Ann", "a@x.example")]);
    expect("\"a@x.example\"", &[("", "a@x.example")]);
    expect("\"Ann <a@x.example>\"", &[("Ann", "a@x.example")]);
    expect("\"a@x.example\" <b@y.example>", &[("a@x.example", "b@y.example")]);
}

#[test]
fn a_quote_that_nothing_ends_is_a_letter() {
    expect("\"Ann <a@x>", &[("Ann", "a@x")]);
    expect("Ann\" <a@x>, Ben <b@x>", &[("Ann", "a@x"), ("Ben", "b@x")]);
    expect("\"Ann <a@x>, \"Ben\" <b@x>", &[("Ann", "a@x"), ("Ben", "b@x")]);
    expect("Ann (work <a@x>", &[("Ann (work", "a@x")]);
}

#[test]
fn a_sender_without_an_address_is_shown() {
    expect("root", &[("root", "")]);
    expect("MAILER-DAEMON", &[("MAILER-DAEMON", "")]);
    expect("\"John Doe\"", &[("John Doe", "")]);
    expect("John Doe", &[("John Doe", "")]);
    expect("John Doe <>", &[("John Doe", "")]);
    expect("Cron Daemon <root>", &[("Cron Daemon", "")]);
    expect("<root>", &[("root", "")]);
    expect("<>", &[]);
    expect("=?utf-8?Q?J=C3=BCrgen?=", &[("Jürgen", "")]);
    expect("root, ann@x", &[("root", ""), ("", "ann@x")]);
    expect("(Cron) root", &[("root", "")]);
}

#[test]
fn a_crowd_of_anything_is_linear() {
    for unit in [
        "\"",
        "(",
        "<",
        "a@",
        "=?",
        "=?utf-8?q?",
        "a ",
        "a,",
        ":",
        "<a@b",
        "\\",
        "@,",
        "a . ",
        "(a",
        "\"a@<\" ",
        "=?a",
        "=?a?q?",
        "<\">(\")",
        "<@\">(\")",
        "<\"",
        "<\">",
        "<\\\">",
        "@[",
        "<<",
    ] {
        // What ends them all stands at the end, or nowhere.
        for end in ["", "?=", ">", "\"", ")", "\\"] {
            let _ = people(&(unit.repeat(100_000 / unit.len()) + end));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_list(field in prop::collection::vec(any::<u8>(), 0..200)) {
        for a in read(&field, Fallback::default()) {
            prop_assert!(!a.to_string().contains(['\r', '\n', '\0']));
            prop_assert!(a.name.is_some() || !a.address.is_empty());
        }
    }

    #[test]
    fn any_pile_of_tokens_is_a_list(pieces in prop::collection::vec(prop::sample::select(vec![
        "ann", "@", "x.example", "<", ">", ",", ";", ":", "\"", "(", ")", " ", "\r\n ", ".", "\\", "[", "]", "=?utf-8?Q?a?=", "ü",
    ]), 0..40)) {
        for a in read(pieces.concat().as_bytes(), Fallback::default()) {
            prop_assert!(!a.to_string().contains(['\r', '\n', '\0']));
        }
    }

    #[test]
    fn what_is_written_is_read(names in prop::collection::vec("[A-Za-z][A-Za-z ,.@()]{0,12}[a-z]", 1..6)) {
        let field: Vec<String> = names.iter().enumerate().map(|(n, name)| format!("\"{name}\" <a{n}@x.example>")).collect();
        let wanted: Vec<_> = names.iter().enumerate().map(|(n, name)| {
            let squeezed = name.split_whitespace().collect::<Vec<_>>().join(" ");
            (Some(squeezed), format!("a{n}@x.example"))
        }).collect();
        prop_assert_eq!(people(&field.join(", ")), wanted);
    }
}
