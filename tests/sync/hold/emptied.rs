//! A mailbox that our user deletes, with mail in it that nobody deleted.

use tests::eventually::eventually;

use super::{HOSTS, PATIENCE, places, there, turn};
use crate::case::{Case, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_in_a_mailbox_that_our_user_deletes_is_in_trash_also_what_nobody_here_had_seen() {
    for host in HOSTS {
        let case = Case::at(host, None, vec![numbered(3)]).await;
        let mut client = case.client().await;
        client.ok("CREATE Old").await;
        client.append("Old", "", None, &numbered(1)).await;
        case.sync().await;
        let (old, ids) = (case.mailbox("Old").await, case.ids().await);
        turn(&case, "pause").await;
        client.append("Old", "", None, &numbered(2)).await;
        let path = format!("/api/mailboxes/{old}?with_messages=true");
        assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
        assert!(!case.mailboxes().await.contains_key("Old"));
        turn(&case, "resume").await;
        case.sync().await;
        eventually("it is gone on the server", PATIENCE, async || {
            let listed = client.ok("LIST \"\" \"*\"").await.listed();
            listed.iter().all(|(_, name)| name != "Old").then_some(())
        })
        .await;
        for n in [1, 2] {
            assert_eq!(there(&case, n).await, places(&[("Trash", "")]), "M{n} at {host}");
        }
        assert_eq!(there(&case, 3).await, places(&[("INBOX", "")]));
        case.sync().await;
        assert_eq!(case.ids().await["M1"], ids["M1"], "it is the same message, at {host}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_below_trash_goes_with_what_is_in_it() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    client.ok("CREATE Trash/Old").await;
    client.append("Trash/Old", "", None, &numbered(1)).await;
    case.sync().await;
    let old = case.mailbox("Trash/Old").await;
    assert_eq!(
        case.app.delete(&case.tenant, &format!("/api/mailboxes/{old}?with_messages=true")).await.status,
        204
    );
    case.sync().await;
    assert!(there(&case, 1).await.is_empty());
    case.settled().await;
    case.finish().await;
}
