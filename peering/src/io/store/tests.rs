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
    assert!(warnings.len() == 1 && warnings[0].1.contains("mode 644"), "{warnings:?}");
}

/// Every way in which the bytes of a file can be wrong: cut at each place, a bit flipped in each byte, more of them, others.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let cut = (0..whole.len()).map(|at| whole[..at].to_vec());
    let flipped = (0..whole.len()).map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let foreign = [b"{}".to_vec(), vec![0; whole.len()], [whole, b"x"].concat()];
    cut.chain(flipped).chain(foreign).collect()
}

#[test]
fn every_damaged_state_is_set_aside_and_a_bounded_number_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.save(b"some state").unwrap();
    let whole = fs::read(dir.path().join(STATE)).unwrap();
    for bytes in damages(&whole) {
        fs::write(dir.path().join(STATE), &bytes).unwrap();
        assert_eq!(store.load().unwrap(), None, "{bytes:?}");
        assert!(!dir.path().join(STATE).exists());
        let (kind, message) = store.take_warnings().remove(0);
        assert!(kind == "state_set_aside" && message.contains("state.corrupt-"), "{message}");
    }
    let kept =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut kept: Vec<String> = kept.filter(|name| name.contains("corrupt")).collect();
    kept.sort();
    assert_eq!(kept, (1..=8).map(|n| format!("state.corrupt-{n}")).collect::<Vec<_>>());
    assert_eq!(fs::read(dir.path().join("state.corrupt-1")).unwrap(), b"");
    assert_eq!(fs::read(dir.path().join("state.corrupt-8")).unwrap(), [&whole[..], b"x"].concat());
    store.save(b"new state").unwrap();
    assert_eq!(store.load().unwrap().as_deref(), Some(&b"new state"[..]));
    assert!(store.take_warnings().is_empty());
}

#[test]
fn a_damaged_identity_is_kept_and_another_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(IDENTITY);
    let mut store = Store::open(dir.path()).unwrap();
    store.identity(|| b"secret".to_vec()).unwrap();
    for bytes in damages(&fs::read(&path).unwrap()) {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.identity(|| b"other".to_vec()).unwrap(), b"other");
        let (kind, message) = store.take_warnings().remove(0);
        assert!(kind == "identity_lost" && message.contains("identity.corrupt-"), "{message}");
        assert_eq!(mode(&path), 0o600);
    }
    assert_eq!(store.identity(|| b"third".to_vec()).unwrap(), b"other");
}

#[test]
fn a_file_that_cannot_be_read_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(STATE)).unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap(), None);
    let (_, message) = store.take_warnings().remove(0);
    assert!(message.contains("it cannot be read: is a directory"), "{message}");
    store.save(b"state").unwrap();
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let path = dir.path().join(STATE);
    let newer = file::tests::of_format(2, b"some state");
    fs::write(&path, &newer).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.ends_with("was written by a newer meshnet (format 2, this one reads 1)"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), newer);
    // Only a whole file says so.
    fs::write(&path, &newer[..newer.len() - 1]).unwrap();
    assert_eq!(store.load().unwrap(), None);
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.save(b"first").unwrap();
    // A directory stands where the new file is written.
    fs::create_dir(dir.path().join("state.new")).unwrap();
    let error = store.save(b"second").unwrap_err().to_string();
    assert_eq!(error, format!("cannot write {}: is a directory", dir.path().join(STATE).display()));
    fs::remove_dir(dir.path().join("state.new")).unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().load().unwrap().as_deref(), Some(&b"first"[..]));
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
    let store = Store::open(dir.path()).expect("a lock file that nobody holds locks nothing");
    // Not even when the file is taken away.
    fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked { .. })));
    drop(store);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("below")).unwrap_err().to_string();
    assert_eq!(error, format!("cannot create {}: not a directory", file.join("below").display()));
}
