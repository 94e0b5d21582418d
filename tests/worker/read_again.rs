//! Mail that an earlier release stored is read again by the parser of this one.

use std::time::Duration;

use sqlx::Executor as _;
use tests::app::App;
use tests::eventually::eventually;
use tests::mail;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_parser_made_of_stored_mail_is_made_anew_once() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let report = "Subject: Report\r\nFrom: Ann <ann@x.test>\r\nMessage-ID: <r@x.test>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nWords about zebras\r\n--b\r\n\
        Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\n\r\n%PDF\r\n--b--\r\n";
    mail::fill(&app, &user, "INBOX", vec![report.into(), mail::message("Other", "o@x.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let list = format!("/api/accounts/{account}/messages?sort=date");
    let right = app.get(&tenant, &list).await.expect(200)["data"].clone();
    let mut conn = app.database.superuser().await;
    let read_by = "SELECT read_by FROM accounts";
    let now: i16 = sqlx::query_scalar(read_by).fetch_one(&mut conn).await.unwrap();
    assert_eq!(now, ::mail::mime::PARSE_VERSION, "what this release connects it also reads");
    // As the release before left it; one of them it could not read without dying.
    conn.execute(
        "UPDATE messages SET subject = 'stale', snippet = 'stale', attachments = '[]', has_attachments = false, from_addresses = '[]',
           date = now(), date_sort_at = now(), date_zone_unknown = true, never_parse = subject = 'Other';
         UPDATE message_mailboxes SET date_sort_at = now(); DELETE FROM message_search; UPDATE accounts SET read_by = 1",
    )
    .await
    .unwrap();
    eventually("all is read again", SOON, async || {
        let now: i16 = sqlx::query_scalar(read_by).fetch_one(&mut conn).await.unwrap();
        (now == ::mail::mime::PARSE_VERSION).then_some(())
    })
    .await;
    let again = app.get(&tenant, &list).await.expect(200)["data"].clone();
    let of = |list: &serde_json::Value, id: &str| {
        list.as_array().unwrap().iter().find(|m| m["message_id_header"] == id).unwrap().clone()
    };
    assert_eq!(of(&again, "r@x.test"), of(&right, "r@x.test"));
    assert_eq!(of(&again, "o@x.test")["subject"], "stale", "it is not looked into");
    let id = of(&again, "r@x.test")["id"].as_str().unwrap().to_owned();
    let alone = app.get(&tenant, &format!("/api/messages/{id}?body=none")).await.expect(200);
    assert_eq!(alone["attachments"][0]["filename"], "report.pdf");
    let found = app.get(&tenant, "/api/sync/search?query=zebras").await.expect(200);
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portion_over_which_processes_ended_twice_is_passed_over() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("One", "1@x.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let mut conn = app.database.superuser().await;
    conn.execute(
        "UPDATE messages SET subject = 'as it was'; UPDATE accounts SET read_by = 0, read_again_tries = 2",
    )
    .await
    .unwrap();
    eventually("the account is through", SOON, async || {
        let now: i16 = sqlx::query_scalar("SELECT read_by FROM accounts").fetch_one(&mut conn).await.unwrap();
        (now == ::mail::mime::PARSE_VERSION).then_some(())
    })
    .await;
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/messages")).await.expect(200);
    assert_eq!(listed["data"][0]["subject"], "as it was");
    app.finish().await;
}
