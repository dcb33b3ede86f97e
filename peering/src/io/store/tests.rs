use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_saved_is_loaded_and_nothing_stays_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state-dir");
    let mut store = Store::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(store.load().unwrap(), None);
    store.save(b"first").unwrap();
    store.save(b"second").unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap().as_deref(), Some(&b"second"[..]));
    assert!(store.take_warnings().is_empty());
    drop(store);
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [STATE]);
}

#[test]
fn the_identity_is_made_once_and_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(IDENTITY);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(store.identity(|| b"secret".to_vec()).unwrap(), b"secret");
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(store.identity(|| b"other".to_vec()).unwrap(), b"secret");
    assert_eq!(mode(&path), 0o600);
    let warnings = store.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("mode 644"), "{warnings:?}");
}

#[test]
fn a_damaged_identity_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    fs::write(dir.path().join(IDENTITY), b"").unwrap();
    let error = store.identity(|| b"other".to_vec()).unwrap_err().to_string();
    assert!(error.contains("is damaged (it is too short): restore it"), "{error}");
    assert_eq!(fs::read(dir.path().join(IDENTITY)).unwrap(), b"");
}

#[test]
fn every_torn_or_flipped_state_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.save(b"some state").unwrap();
    let whole = fs::read(dir.path().join(STATE)).unwrap();
    for at in 0..whole.len() {
        for torn in [true, false] {
            let mut bytes = whole.clone();
            if torn {
                bytes.truncate(at);
            } else if (8..12).contains(&at) {
                continue; // the format: another test
            } else {
                bytes[at] ^= 0x40;
            }
            fs::write(dir.path().join(STATE), &bytes).unwrap();
            assert_eq!(store.load().unwrap(), None, "byte {at}, torn {torn}");
            assert!(!dir.path().join(STATE).exists());
        }
    }
    assert!(dir.path().join("state.corrupt-1").exists());
    assert!(dir.path().join("state.corrupt-2").exists());
    assert!(store.take_warnings()[0].contains("set aside as"));
    assert_eq!(store.load().unwrap(), None);
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.save(b"some state").unwrap();
    let path = dir.path().join(STATE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.ends_with("was written by a newer meshnet (format 2, this one reads 1)"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_second_writer_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    drop(store);
    assert!(!dir.path().join("lock").exists());
    fs::write(dir.path().join("lock"), b"4194304\n").unwrap();
    Store::open(dir.path()).expect("a lock file that nobody holds locks nothing");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("below")).unwrap_err().to_string();
    assert_eq!(error, format!("cannot create {}: not a directory", file.join("below").display()));
}
