//! The lines that a person pastes: bash and curl, no other tool.

use devstack::Endpoints;

use crate::product::{PASSWORD, TENANT, USER, account};

/// A script that connects both mailboxes and uses each part of the API once. Its exit code is 1 when the sent mail did
/// not arrive.
pub(crate) fn lines(url: &str, endpoints: &Endpoints, mailboxes: &[&str; 2]) -> String {
    let [alice, bob] = mailboxes;
    let accounts = [account(endpoints, alice, "Alice"), account(endpoints, bob, "Bob")];
    let [alice_account, bob_account] = accounts.map(|account| account.to_string());
    format!(
        r#"API={url}
TOKEN=$(curl -sS "$API/auth/login" -H 'X-Tenant-ID: {TENANT}' -H 'Accept: text/plain' -d '{{"email":"{USER}","password":"{PASSWORD}"}}')
call() {{ curl -sS -H "Authorization: Bearer $TOKEN" -H 'X-Tenant-ID: {TENANT}' -H 'Content-Type: application/json' "$@"; echo; }}
first_id() {{ local ANSWER; ANSWER=$(cat); echo "$ANSWER" >&2; echo "$ANSWER" | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4; }}
# Is it well? Who am I?
curl -sS "$API/health"; echo
call "$API/auth/me"
# Connect both mailboxes; the credentials are tried at once.
ALICE=$(call "$API/api/accounts" -d '{alice_account}' | first_id)
BOB=$(call "$API/api/accounts" -d '{bob_account}' | first_id)
[ -n "$ALICE" ] || ALICE=$(call "$API/api/accounts" | grep -o '"id":"[^"]*","email":"{alice}"' | first_id)
[ -n "$BOB" ] || BOB=$(call "$API/api/accounts" | grep -o '"id":"[^"]*","email":"{bob}"' | first_id)
call "$API/api/accounts"
# Synchronise, and watch the progress until it is done.
call -X POST "$API/api/sync/imap/$ALICE"
call -X POST "$API/api/sync/imap/$BOB"
for ACCOUNT in "$ALICE" "$BOB"; do
  for TRY in $(seq 60); do call "$API/api/sync/status/$ACCOUNT" | grep -q '"state":"done"' && break; sleep 1; done
done
call "$API/api/sync/status/$ALICE"
# Mailboxes, the newest messages, one of them, its thread's neighbours.
call "$API/api/accounts/$ALICE/mailboxes"
call "$API/api/accounts/$ALICE/messages?role=inbox&limit=3"
MESSAGE=$(call "$API/api/accounts/$ALICE/messages?role=inbox&limit=1" | first_id)
call "$API/api/messages/$MESSAGE?body=text"
# Star it, archive it, take the star back: three edits within a second, seen at once and done on the server in this order.
call -X PATCH "$API/api/messages/$MESSAGE" -d '{{"starred":true}}' | head -c 300; echo
call "$API/api/messages/actions" -d '{{"ids":["'"$MESSAGE"'"],"action":"archive"}}'
call -X PATCH "$API/api/messages/$MESSAGE" -d '{{"starred":false}}' | head -c 300; echo
call "$API/api/accounts/$ALICE/threads?limit=2"
# Search; the words of bodies are indexed in the background, a moment after the mail is visible.
for TRY in $(seq 20); do call -G "$API/api/sync/search" --data-urlencode 'query=invoice OR budget' -d limit=2 | grep -q '<mark>' && break; sleep 1; done
call -G "$API/api/sync/search" --data-urlencode 'query=invoice OR budget' -d limit=2
call -G "$API/api/sync/search" --data-urlencode 'query=has:attachment larger:50k' -d limit=1
# Write to Bob, and send it.
SUBJECT="Hello from the demo $(date +%H:%M:%S)"
DRAFT=$(call "$API/api/compose" -d '{{"account_id":"'"$ALICE"'","to":["{bob}"],"subject":"'"$SUBJECT"'","text":"It works."}}' | first_id)
call "$API/api/compose/$DRAFT"
call -X POST "$API/api/compose/$DRAFT/attachments?filename=notes.txt" --data-binary 'Notes for Bob.'
SUBMISSION=$(call -X POST "$API/api/compose/$DRAFT/send" -d '{{}}' | first_id)
# It arrives in Bob's inbox, and the submission says so.
for TRY in $(seq 30); do call "$API/api/accounts/$BOB/messages?role=inbox&limit=1" | grep -q "$SUBJECT" && break; sleep 1; done
call "$API/api/submissions/$SUBMISSION"
ARRIVED=$(call "$API/api/accounts/$BOB/messages?role=inbox&limit=1"); echo "$ARRIVED"
echo "$ARRIVED" | grep -q "$SUBJECT" && echo "The mail to {bob} has arrived."
"#
    )
}
