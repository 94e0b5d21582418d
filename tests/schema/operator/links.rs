//! The one file that the image ships is the program by whose name it is called.

use std::os::unix::fs::symlink;

use super::program::{Folder, Settings, path};

#[test]
fn one_file_is_each_program_by_a_link_of_its_name() {
    let folder = Folder::new();
    let link = |name: &str| {
        symlink(path("emailclient"), folder.file(name)).unwrap();
        folder.file(name)
    };
    for service in ["emailclient-api", "emailclient-worker", "emailclient-scheduler"] {
        let ended = Settings::none().refused(&link(service));
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.err.starts_with(&format!("{service}: DATABASE_URL: missing")), "{ended:?}");
    }
    let ended = Settings::none().refused(&link("emailctl"));
    assert!(ended.err.contains("Usage: emailctl <COMMAND>"), "{ended:?}");
    for other in [link("emailclient-apis"), path("emailclient").to_str().unwrap().to_owned()] {
        let ended = Settings::none().refused(&other);
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
        assert!(ended.err.starts_with(&other) && ended.err.contains("emailclient-worker"), "{ended:?}");
    }
}
