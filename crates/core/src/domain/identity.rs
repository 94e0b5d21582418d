//! Identities: the From addresses an account may use. The account's own address is always the first.
//!
//! They are written with the account; here they are read and a sender is judged by them.

use mail::address::Address;
use mail::compose::is_own;

use crate::domain::account;
pub use crate::domain::account::Identity;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;

fn as_from(identity: &Identity) -> Address {
    let name = Some(identity.name.trim()).filter(|n| !n.is_empty()).map(str::to_owned);
    Address { name, address: identity.email.clone() }
}

/// The identities of `account`, its own address first. `None`: the tenant has no such account.
pub async fn list(tx: &mut TenantTx, account: AccountId) -> Result<Option<Vec<Identity>>, DbError> {
    let found = account::get(tx, account).await?;
    Ok(found.map(|a| if a.identities.is_empty() { vec![identity(a.email, a.name)] } else { a.identities }))
}

fn identity(email: String, name: String) -> Identity {
    Identity { email, name, signature_text: String::new(), signature_html: String::new() }
}

/// The From that a sender's wish leads to: the first identity where nothing is wished, the identity of the wished
/// address with the wished name otherwise. An identity with a `+tag` is that identity too, and stays tagged. `None`: the
/// account may not use that address.
#[must_use]
pub fn choose(identities: &[Identity], wished: Option<&Address>) -> Option<Address> {
    let found = as_from(meant(identities, wished)?);
    let Some(wished) = wished else { return Some(found) };
    let same = wished.same_mailbox(&found.address);
    let address = if same { found.address } else { wished.address.clone() };
    Some(Address { name: wished.name.clone().or(found.name), address })
}

/// The identity that a sender's wish means, as in [`choose`].
#[must_use]
pub fn meant<'i>(identities: &'i [Identity], wished: Option<&Address>) -> Option<&'i Identity> {
    let Some(wished) = wished else { return identities.first() };
    let same = identities.iter().find(|i| wished.same_mailbox(&i.email));
    same.or_else(|| identities.iter().find(|i| is_own(wished, &i.email)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: Option<&str>, address: &str) -> Address {
        Address { name: name.map(str::to_owned), address: address.to_owned() }
    }

    #[test]
    fn a_sender_is_an_identity_or_nobody() {
        let list = [("me@a.example", "Me"), ("sales@a.example", " ")]
            .map(|(e, n)| identity(e.to_owned(), n.to_owned()));
        assert_eq!(choose(&list, None), Some(address(Some("Me"), "me@a.example")));
        assert_eq!(
            choose(&list, Some(&address(None, "Sales@A.example"))),
            Some(address(None, "sales@a.example"))
        );
        assert_eq!(
            choose(&list, Some(&address(Some("I"), "me@a.example"))),
            Some(address(Some("I"), "me@a.example"))
        );
        assert_eq!(
            choose(&list, Some(&address(None, "me+shop@a.example"))),
            Some(address(Some("Me"), "me+shop@a.example"))
        );
        let idn = [identity("me@bücher.example".to_owned(), "Me".to_owned())];
        assert_eq!(
            choose(&idn, Some(&address(None, "me@xn--bcher-kva.example"))),
            Some(address(Some("Me"), "me@bücher.example"))
        );
        assert_eq!(
            choose(&idn, Some(&address(None, "me+shop@xn--bcher-kva.example"))),
            Some(address(Some("Me"), "me+shop@xn--bcher-kva.example"))
        );
        assert_eq!(choose(&list, Some(&address(None, "boss@a.example"))), None);
        assert_eq!(choose(&list, Some(&address(None, "boss+me@a.example"))), None);
    }
}
