//! A schema registry on loopback, as far as its API is asked here.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What is answered by path; to other paths 503.
type Answers = Arc<Mutex<HashMap<String, (u16, String)>>>;

/// It lasts as long as the test.
pub struct Server {
    pub url: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server { url, answers: Answers::default(), asked: Arc::default() };
        let (answers, asked) = (Arc::clone(&server.answers), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                // The headers to their end.
                let _ = lines.take_while(|line| !line.is_empty()).count();
                let answer = answers.lock().unwrap().get(&path).cloned();
                let (status, body) = answer.unwrap_or((503, String::new()));
                asked.lock().unwrap().push(path);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        server
    }

    fn answer(&self, id: u32, status: u16, body: &Value) {
        self.answers.lock().unwrap().insert(format!("/schemas/ids/{id}"), (status, body.to_string()));
    }

    /// Has the schemas of the golden records, and knows of no other up to 20.
    pub fn have_schemas(&self) {
        for id in 0..20 {
            self.answer(id, 404, &json!({ "error_code": 40403, "message": "Schema not found" }));
        }
        for (id, name) in [(7, "reading.avsc"), (100_000, "reading-2.avsc")] {
            let schema = std::fs::read_to_string(super::golden(name)).unwrap();
            self.answer(id, 200, &json!({ "schema": schema }));
        }
    }

    /// Answers nothing but 503 any more.
    pub fn forget(&self) {
        self.answers.lock().unwrap().clear();
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}
