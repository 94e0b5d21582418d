//! The lines that a person pastes: bash and curl, no other tool.

use devstack::Endpoints;

use devstack::oauth::{Authority, Endpoint};
use serde_json::{Value, json};

use super::APP;
use crate::product::{PASSWORD, TENANT, USER, VIEWER, account};

/// Where a person is sent once an account is connected. Nothing listens there: the tour reads the address.
const CONNECTED: &str = "http://127.0.0.1/connected";

/// A script that connects all mailboxes and uses each part of the API once. Its exit code is 1 when the sent mail did
/// not arrive.
pub(crate) fn lines(
    url: &str,
    endpoints: &Endpoints,
    mailboxes: &[&str; 3],
    authority: &Authority,
) -> String {
    let [alice, bob, carol] = mailboxes;
    let by_consent = by_consent(carol, endpoints, authority);
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
{by_consent}# Mailboxes, the newest messages, one of them, its thread's neighbours.
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
# Bob answers: the quote, the recipient and the threading are made here, and his message is marked as answered once it is sent.
ANSWERED=$(echo "$ARRIVED" | grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
REPLY=$(call "$API/api/compose" -d '{{"account_id":"'"$BOB"'","reply_to_message_id":"'"$ANSWERED"'","text":"It does."}}' | first_id)
call -X POST "$API/api/compose/$REPLY/send" -d '{{}}'
for TRY in $(seq 30); do call "$API/api/messages/$ANSWERED?body=none" | grep -q '"answered":true' && break; sleep 1; done
call "$API/api/messages/$ANSWERED?body=none"
# What changed since a state; and the same as it happens, from a stream of events that ends after one.
STATE=$(call "$API/api/accounts/$BOB/changes" | grep -o '"new_state":"[^"]*"' | cut -d '"' -f 4)
call -X PATCH "$API/api/messages/$ANSWERED" -d '{{"starred":true}}' >/dev/null
call "$API/api/accounts/$BOB/changes?since=$STATE"
call -N -m 20 "$API/api/events?types=message.updated&closeafter=1" & STREAM=$!
sleep 1
call -X PATCH "$API/api/messages/$ANSWERED" -d '{{"starred":false}}' >/dev/null
wait $STREAM
# Who did what.
call "$API/api/audit?limit=3"
# A colleague who may read and no more: the mail is there, a deletion is refused, and the refusal stands in the audit trail.
VIEWER=$(curl -sS "$API/auth/login" -H 'X-Tenant-ID: {TENANT}' -H 'Accept: text/plain' -d '{{"email":"{VIEWER}","password":"{PASSWORD}"}}')
curl -sS "$API/auth/me" -H "Authorization: Bearer $VIEWER" -H 'X-Tenant-ID: {TENANT}'; echo
curl -sS -X DELETE "$API/api/messages/$ANSWERED" -H "Authorization: Bearer $VIEWER" -H 'X-Tenant-ID: {TENANT}'; echo
[ -n "$CAROL" ] && echo "{carol} is connected by the page."
echo "$ARRIVED" | grep -q "$SUBJECT" && [ -n "$CAROL" ] && echo "The mail to {bob} has arrived."
"#
    )
}

/// A mailbox is connected without a password. Its account's id is in `CAROL` then.
fn by_consent(carol: &str, endpoints: &Endpoints, authority: &Authority) -> String {
    let (app, consent) = (app(endpoints, authority), authority.url(Endpoint::Authorize));
    format!(
        r##"# Connect Carol's mailbox on the page for people, at a provider of the demo's own: no password, her consent. First the app that was
# registered there, what the page shows of you, and where she is sent in the end.
call -X PATCH "$API/api/tenant" -d '{{"redirect_urls":["{CONNECTED}"],"branding":{{"name":"Demo","colour":"#0f766e"}}}}'
APP=$(call "$API/api/oauth/apps" -d '{app}' | first_id)
PAGE=$(call "$API/api/connect/sessions" -d '{{"email":"{carol}","redirect_url":"{CONNECTED}","state":"yours"}}' | grep -o '"url":"[^"]*"' | cut -d '"' -f 4)
# What her browser does: the page, her address, the link to the provider, the provider's page, her consent, back to us, and on to your
# page with the account's id.
FORM=$(curl -sS "$PAGE" | grep -o 'name="form" value="[^"]*"' | head -n 1 | cut -d '"' -f 4)
curl -sS -o /dev/null "$PAGE" -d "form=$FORM&do=address" --data-urlencode 'email={carol}'
LINK=$(curl -sS "$PAGE" | grep -o "href=.[^\"]*/consent/$APP" | head -n 1 | cut -d '"' -f 2)
PERSON=$(curl -sS -o /dev/null -w '%{{redirect_url}}' "$API$LINK")
TICKET=$(curl -sS "$PERSON" | grep -o 'name="ticket" value="[^"]*"' | cut -d '"' -f 4)
BACK=$(curl -sS -o /dev/null -w '%{{redirect_url}}' "{consent}" --data-urlencode "ticket=$TICKET" -d 'user={carol}&answer=allow')
ON=$(curl -sS -o /dev/null -w '%{{redirect_url}}' "$BACK"); echo "$ON"
CAROL=$(echo "$ON" | grep -o 'account_id=[^&]*' | cut -d '=' -f 2)
call "$API/api/accounts/$CAROL"
for TRY in $(seq 60); do call "$API/api/sync/status/$CAROL" | grep -q '"state":"done"' && break; sleep 1; done
call "$API/api/accounts/$CAROL/messages?role=inbox&limit=1" | head -c 300; echo
"##
    )
}

/// What a client says to name the app.
fn app(endpoints: &Endpoints, authority: &Authority) -> Value {
    let server = |port: u16| json!({ "host": "localhost", "port": port, "security": "tls" });
    json!({
        "provider": "custom", "name": "Demo provider", "client_id": APP[0], "client_secret": APP[1],
        "scopes": [devstack::OAUTH_SCOPE, "openid", "email", "offline_access"],
        "endpoints": {
            "issuer": authority.base_url(),
            "authorization_endpoint": authority.url(Endpoint::Authorize),
            "token_endpoint": authority.url(Endpoint::Token),
            "revocation_endpoint": authority.url(Endpoint::Revoke),
            "jwks_uri": authority.url(Endpoint::Keys),
            "imap": server(endpoints.imaps_port), "smtp": server(endpoints.submissions_port),
        },
    })
}
