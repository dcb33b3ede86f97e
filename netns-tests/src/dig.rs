//! Asking for names as a container does.

use anyhow::Result;

use crate::netns::Namespace;
use crate::process::Tool;

impl Namespace {
    /// What `dig` says in the namespace, with these words after it; one try of two seconds. Without a cookie, as resolvers ask:
    /// the answer to one is for its asker alone.
    pub fn dig(&self, words: &str) -> Result<String> {
        Tool::new("dig").words("+time=2 +tries=1 +nocookie").words(words).inside(self).run()
    }

    /// The records that `dig +short` prints, in their order; none also when nobody answers.
    pub fn resolve(&self, words: &str) -> Vec<String> {
        let lines =
            |text: String| text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect();
        self.dig(&format!("+short {words}")).map(lines).unwrap_or_default()
    }
}
