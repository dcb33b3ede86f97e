use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::super::Change;
use super::*;

const WEB: &str = r#"{"Id":"c0ffee","Name":"/web","State":{"Running":true,"Restarting":false,"Pid":4711},
    "HostConfig":{"NetworkMode":"bridge"},"Image":"sha256:00"}"#;

/// A Docker that gives each connection the next of `answers` and closes it, and returns what was asked.
fn fake(socket: &Path, answers: Vec<Vec<String>>) -> tokio::task::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let mut asked = Vec::new();
        for pieces in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..len]).lines().next().unwrap().to_owned());
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        asked
    })
}

fn answer(status: &str, body: &str) -> Vec<String> {
    vec![format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())]
}

fn docker_at(socket: &Path) -> Docker {
    Docker::from_host(Some(&format!("unix://{}", socket.display())))
}

#[tokio::test]
async fn a_container_is_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let stopped = WEB.replace("4711", "0");
    let answers = vec![
        answer("200 OK", WEB),
        answer("404 Not Found", r#"{"message":"No such container: we/b"}"#),
        answer("200 OK", &stopped.replace("\"bridge\"", "\"host\"")),
        answer("500 Internal Server Error", r#"{"message":"disk full"}"#),
        answer("200 OK", "[]"),
    ];
    let server = fake(&socket, answers);
    let docker = docker_at(&socket);
    let web = docker.inspect("web").await.unwrap().unwrap();
    assert_eq!((web.id.as_str(), web.name.as_str(), web.pid), ("c0ffee", "web", Some(4711)));
    assert!(!web.host_network);
    assert_eq!(docker.inspect("we/b").await.unwrap(), None);
    let stopped = docker.inspect("web").await.unwrap().unwrap();
    assert!(stopped.pid.is_none() && stopped.host_network);
    assert!(docker.inspect("web").await.unwrap_err().to_string().contains("disk full"));
    assert!(matches!(docker.inspect("web").await, Err(DockerError::Garbled(_))));
    let asked = server.await.unwrap();
    assert_eq!(asked[0], "GET /containers/web/json HTTP/1.1");
    assert_eq!(asked[1], "GET /containers/we%2Fb/json HTTP/1.1");
}

#[tokio::test]
async fn events_arrive_however_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let start = r#"{"Type":"container","Action":"start","Actor":{"ID":"aa"}}"#;
    let answers = vec![vec![
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        chunk(&start[..20]),
        chunk(&format!(
            "{}\n{{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{{\"ID\":\"bb\"}}}}\n",
            &start[20..]
        )),
        chunk("garbage\n{\"Type\":\"container\",\"Action\":\"destroy\",\"Actor\":{\"ID\":\"cc\"}}\n"),
        "0\r\n\r\n".to_owned(),
    ]];
    let server = fake(&socket, answers);
    let mut events = docker_at(&socket).events().await.unwrap();
    let mut seen = Vec::new();
    while let Some(Change { id }) = events.next().await {
        seen.push(id);
    }
    assert_eq!(seen, ["aa", "bb", "cc"]);
    assert!(server.await.unwrap()[0].starts_with("GET /events?filters=%7B%22type%22"));
}

#[tokio::test]
async fn a_docker_that_is_not_there_is_an_error_with_its_place() {
    let error = docker_at(Path::new("/nonexistent/docker.sock")).inspect("web").await.unwrap_err();
    assert!(error.to_string().starts_with("Docker does not answer on /nonexistent/docker.sock"));
    let error = Docker::from_host(Some("tcp://192.0.2.1:2375")).inspect("web").await.unwrap_err();
    assert!(matches!(error, DockerError::Unsupported(_)));
}
