//! What the command line says before it talks to anybody: usage, bad values, unreachable endpoints,
//! and where nothing may listen.

mod cluster;
mod host;

use cluster::Sdm;
use cluster::program;
use host::Scratch;
use host::send;
use host::text;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

/// An operator who knows no member.
fn nobody() -> Sdm {
    Sdm::default()
}

/// An operator who knows these endpoints.
fn at(address: &str) -> Sdm {
    Sdm { endpoints: vec![address.to_owned()], secret: None }
}

#[test]
fn a_size_that_is_none_is_told_with_examples_and_ends_with_2() {
    let answer = nobody().run_for_people(&["disk", "create", "x", "--domain", "fast1", "--size", "40GG"]);
    assert_eq!(answer.code, 2);
    assert_eq!(answer.stdout, "");
    let lines: Vec<&str> = answer.stderr.lines().collect();
    assert_eq!(lines[0], "error: --size: \"40GG\" is not a size (examples: 40GiB, 40G, 42949672960)   [BAD_SIZE]");
    assert!(lines[1].starts_with("hint: "), "{answer:?}");
}

#[test]
fn bad_names_ids_durations_and_usage_end_with_2_in_json_too() {
    let cases: &[(&[&str], &str)] = &[
        (&["disk", "create", "../x", "--domain", "d", "--size", "1G"], "BAD_NAME"),
        (&["disk", "create", "x", "--domain", "d", "--size", "0"], "BAD_SIZE"),
        (&["disk", "create", "0f0f0f0f-1111-4222-8333-444444444444", "--domain", "d", "--size", "1G"], "BAD_NAME"),
        (&["disk", "delete", "x", "--request-id", "7"], "BAD_REQUEST_ID"),
        (&["disk", "delete", "x", "--wait-lock", "5"], "BAD_DURATION"),
        (&["domain", "create", "d", "--path", "relative"], "BAD_PATH"),
        (&["status", "--timeout", "soon"], "BAD_DURATION"),
        (&["status", "--endpoints", "nowhere"], "BAD_ADDRESS"),
        (&["txn", "show", "x"], "BAD_TRANSACTION_ID"),
        (&["backup", "reconcile", "--take-from", "x"], "BAD_CLUSTER_ID"),
        (&["no-such-noun"], "USAGE"),
        (&["disk", "move", "x"], "USAGE"),
        (&["disk"], "USAGE"),
        (&["lock", "show", "disks/x"], "BAD_RESOURCE"),
    ];
    for (arguments, reason) in cases {
        let refused = nobody().refused(arguments);
        assert_eq!((refused.code, refused.reason()), (2, *reason), "{arguments:?}");
        assert!(*reason != "BAD_ADDRESS" || !refused.hint().is_empty(), "{refused:?}");
    }
    let missing = nobody().refused(&["disk", "create", "x"]);
    missing.says(2, "USAGE", &["--domain <D>", "--size <S>"]);
    assert!(missing.hint().contains("Usage: sdm disk create"), "{missing:?}");
}

/// A command whose reader is gone before it says anything, as with `| head` or `| true`.
#[test]
fn a_reader_that_goes_away_is_no_reason_to_panic() {
    for arguments in
        [["--help"].as_slice(), &["disk", "--help"], &["exit-codes"], &["-o", "json", "exit-codes"], &["version"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        let command = program().args(arguments).stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop(reader);
        let ended = command.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), stderr.as_ref()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn an_interrupt_at_any_early_moment_ends_with_130() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for pause_ms in [0, 1, 2, 4, 8, 16, 32] {
        for arguments in [["disk", "list"].as_slice(), &["status", "--wait"], &["lock", "acquire", "x", "--", "true"]] {
            let running = at(&address).start(arguments);
            std::thread::sleep(std::time::Duration::from_millis(pause_ms));
            send(running.pid(), rustix::process::Signal::INT);
            let ended = running.finish();
            assert_eq!((ended.code, ended.stdout.as_str()), (130, ""), "{arguments:?} after {pause_ms} ms: {ended:?}");
            assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        }
    }
}

#[test]
fn files_that_cannot_be_imported_or_written_are_refused_before_anybody_is_asked() {
    let scratch = Scratch::new("files");
    let (folder, empty, fifo, link) =
        (scratch.folder("a-folder"), scratch.join("empty"), scratch.join("fifo"), scratch.join("dangling"));
    std::fs::write(&empty, "").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    symlink("nowhere", &link).unwrap();
    let missing = scratch.join("missing");
    let cases = [
        (&missing, 3, "FILE_NOT_FOUND"),
        (&link, 3, "FILE_NOT_FOUND"),
        (&folder, 2, "NOT_A_FILE"),
        (&fifo, 2, "NOT_A_FILE"),
        (&std::path::PathBuf::from("/dev/null"), 2, "NOT_A_FILE"),
        (&std::path::PathBuf::from("-"), 2, "NOT_A_FILE"),
        (&empty, 2, "EMPTY_FILE"),
    ];
    for (file, code, reason) in cases {
        for format in ["raw", "qcow2"] {
            let arguments = ["disk", "import", text(file), "--name", "x", "--domain", "d", "--format", format];
            let named = if text(file) == "-" { "standard input" } else { text(file) };
            nobody().refused(&arguments).states(code, reason, &[named]);
        }
    }
    let export = |file: &std::path::Path| nobody().refused(&["disk", "export", "x", text(file)]);
    export(&empty).says(4, "FILE_EXISTS", &[text(&empty)]);
    export(&scratch.join("no-folder/file")).says(3, "FOLDER_NOT_FOUND", &["no-folder"]);
    let onto_folder = nobody().refused(&["disk", "export", "x", text(&folder), "--overwrite"]);
    onto_folder.states(2, "NOT_A_FILE", &[text(&folder)]);
}

#[test]
fn when_nobody_answers_every_endpoint_is_named_with_the_cause() {
    // Bound and dropped: nothing listens there now.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for arguments in [["status", "--check"].as_slice(), &["disk", "list"], &["disk", "delete", "x"]] {
        let refused = at(&address).refused(arguments);
        assert_eq!((refused.code, refused.reason()), (20, "UNREACHABLE"), "{arguments:?}");
        let blocker = &refused.error["blockers"][0];
        assert_eq!(blocker["id"], *address);
        let description = blocker["description"].as_str().unwrap();
        assert!(description.contains("refused"), "the cause is not told: {description}");
    }
}

#[test]
fn a_server_of_something_else_is_passed_over_as_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            use std::io::Write;
            // Whoever asks is gone before the answer, sometimes: that is its affair.
            _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let refused = at(&address).refused(&["disk", "list"]);
    assert_eq!((refused.code, refused.reason()), (20, "UNREACHABLE"), "{refused:?}");
}

#[test]
fn a_silent_endpoint_ends_with_the_timeout_that_the_user_gave() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let refused = at(&address).refused(&["--timeout", "300ms", "disk", "delete", "x"]);
    assert_eq!((refused.code, refused.reason()), (9, "TIMED_OUT"));
    assert!(refused.hint().starts_with("look: sdm txn show "), "{refused:?}");
    drop(listener);
}

#[test]
fn ctrl_c_ends_with_130_and_says_how_to_look() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let running = at(&address).start(&["disk", "delete", "x"]);
    // It has connected: from now on it waits for an answer that never comes.
    let connection = listener.accept().unwrap();
    send(running.pid(), rustix::process::Signal::INT);
    let refused = running.finish().refusal();
    refused.says(130, "INTERRUPTED", &["not known"]);
    assert!(refused.hint().starts_with("look: sdm txn show "), "{refused:?}");
    drop(connection);
    // What reads only has begun nothing.
    let running = at(&address).start(&["disk", "list"]);
    let connection = listener.accept().unwrap();
    send(running.pid(), rustix::process::Signal::INT);
    running.finish().refusal().says(130, "INTERRUPTED", &["nothing was begun"]);
    drop(connection);
}

#[test]
fn nothing_listens_beyond_this_host_without_a_secret() {
    let scratch = Scratch::new("listen");
    let data = scratch.join("data");
    for noun in ["coordinator", "worker"] {
        for listen in ["0.0.0.0:0", "[::]:0"] {
            let mut arguments = vec![noun, "--name", "x", "--listen", listen, "--data-dir", text(&data)];
            if noun == "worker" {
                arguments.extend(["--coordinators", "127.0.0.1:1"]);
            }
            let refused = nobody().refused(&arguments);
            assert_eq!((refused.code, refused.reason()), (2, "SECRET_REQUIRED"), "{noun} {listen}");
        }
    }
    assert!(!data.exists(), "a refused member leaves no folder");
}

#[test]
fn help_names_the_exit_codes_and_version_is_a_result() {
    let help = nobody().run_for_people(&["--help"]);
    assert!(help.code == 0 && help.stdout.contains("130") && help.stdout.contains("Exit codes"), "{help:?}");
    let version = nobody().run_for_people(&["--version"]);
    assert!(version.stdout.starts_with("sdm "), "{version:?}");
    assert!(nobody().done(&["version"])["version"].is_string());
}
