//! Programs of PyPI that tests need, each in an environment of its own under `target`, made when it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use emailclient_core::platform::id::new_uuid;

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
}

/// The program `name` of exactly this version, installed at need.
///
/// # Panics
/// When it is missing and cannot be installed.
#[must_use]
pub fn program(name: &str, version: &str) -> PathBuf {
    let program = Path::new("bin").join(name);
    environment(name, version, &program).join(program)
}

/// A Python that has exactly this version of the library `name`, installed at need.
///
/// # Panics
/// When it is missing and cannot be installed.
#[must_use]
pub fn with_library(name: &str, version: &str) -> PathBuf {
    let whole = Path::new("whole");
    let place = environment(name, version, whole);
    std::fs::write(place.join(whole), "").unwrap();
    place.join("bin/python")
}

/// The folder with the files of exactly this version of the package `name`, for what it carries and not to run it: what it depends on
/// is left out. Fetched at need.
///
/// # Panics
/// When it is missing and cannot be fetched.
#[must_use]
pub fn files(name: &str, version: &str) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    let place = cache.join(format!("{name}-{version}-files"));
    if !place.exists() {
        // Beside its place until it is whole. Who came second finds it there.
        let half = cache.join(format!("files-{}", new_uuid().simple()));
        std::fs::create_dir_all(&half).unwrap();
        let fetcher = half.join("fetcher");
        run(Command::new("python3").args(["-m", "venv"]).arg(&fetcher));
        let mut pip = Command::new(fetcher.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--target"]);
        run(pip.arg(half.join("files")).arg(format!("{name}=={version}")));
        let _ = std::fs::rename(half.join("files"), &place);
        std::fs::remove_dir_all(&half).unwrap();
    }
    place
}

/// The environment of a package, made unless this file of it is there.
fn environment(name: &str, version: &str, sign: &Path) -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python");
    let place = cache.join(format!("{name}-{version}"));
    if place.join(sign).exists() {
        return place;
    }
    // Beside its place until it is whole, so that a test that was ended leaves no half of it. An environment knows its
    // own path, so it is made anew in its place once the packages are at hand.
    let wheels = cache.join(format!("wheels-{}", new_uuid().simple()));
    std::fs::create_dir_all(&wheels).unwrap();
    let fetcher = wheels.join("fetcher");
    run(Command::new("python3").args(["-m", "venv"]).arg(&fetcher));
    let wanted = format!("{name}=={version}");
    let pip = |place: &Path| {
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip
    };
    run(pip(&fetcher).arg("download").arg("--dest").arg(&wheels).arg(&wanted));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place));
    let from = format!("--find-links={}", wheels.display());
    run(pip(&place).args(["install", "--no-index", &from, &wanted]));
    std::fs::remove_dir_all(&wheels).unwrap();
    place
}
