//! The patterns of `files`: paths in which `*`, `?` and `[…]` stand for parts of one name and `**` for any folders.
//!
//! As in a shell, a name that begins with a dot is met only by a pattern that writes the dot. There is no escape; `[*]` is a
//! star. A small matcher of our own, since what is listed, and when, is decided here and not by a library.

use wasmflow_sdk::disk::{child, components};

/// One component of a pattern, between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// A name as it stands.
    Name(String),
    /// A name with wildcards.
    Wild(Vec<Token>),
    /// `**`: no folder, or any number of them.
    Folders,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Is(char),
    One,
    Any,
    OneOf { ranges: Vec<(char, char)>, not: bool },
}

/// A pattern, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// The folder before the first wildcard, in the pattern's own words; empty is the current one.
    base: String,
    components: Vec<Component>,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = components(text);
        match names.last() {
            None => return Err("names no file".into()),
            _ if text.ends_with('/') => return Err("names a folder: end it with a file name or `/*`".into()),
            Some(last) if last == ".." || last == "**" => return Err("must end with a file name, as in `/*`".into()),
            Some(_) => {}
        }
        let mut rest = names.iter().map(|name| component(name)).collect::<Result<Vec<_>, _>>()?;
        let last = rest.len() - 1;
        let literal = rest[..last].iter().take_while(|each| matches!(each, Component::Name(_))).count();
        rest.drain(..literal);
        Ok(Pattern { text: text.into(), base: join(&names[..literal]), components: rest })
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder that has to be granted.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What follows the base; never empty.
    pub fn components(&self) -> &[Component] {
        &self.components
    }
}

fn join(names: &[String]) -> String {
    names.iter().fold(String::new(), |path, name| child(&path, name))
}

fn component(name: &str) -> Result<Component, String> {
    if name == "**" {
        return Ok(Component::Folders);
    }
    if !name.contains(['*', '?', '[']) {
        return Ok(Component::Name(name.to_owned()));
    }
    let mut tokens = Vec::new();
    let mut rest = name.chars().peekable();
    while let Some(letter) = rest.next() {
        tokens.push(match letter {
            '*' => {
                while rest.next_if_eq(&'*').is_some() {}
                Token::Any
            }
            '?' => Token::One,
            '[' => set(&mut rest).ok_or_else(|| format!("`{name}` has a `[` without its `]`"))?,
            other => Token::Is(other),
        });
    }
    Ok(Component::Wild(tokens))
}

/// The rest of a `[…]`: `!` or `^` first means "none of these"; a `]` first stands for itself.
fn set(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let not = rest.next_if(|letter| matches!(letter, '!' | '^')).is_some();
    let mut ranges = Vec::new();
    loop {
        let first = rest.next()?;
        if first == ']' && !ranges.is_empty() {
            return Some(Token::OneOf { ranges, not });
        }
        let mut last = first;
        if rest.peek() == Some(&'-') {
            let mut ahead = rest.clone();
            ahead.next();
            if let Some(end) = ahead.next().filter(|end| *end != ']') {
                (last, *rest) = (end, ahead);
            }
        }
        ranges.push((first, last));
    }
}

/// Whether a name fits the tokens.
pub fn fits(tokens: &[Token], name: &str) -> bool {
    if name.starts_with('.') && tokens.first() != Some(&Token::Is('.')) {
        return false;
    }
    let letters: Vec<char> = name.chars().collect();
    // Where to go on when what followed the last star did not fit: that star takes one letter more. Going back to the
    // last star alone is enough, and keeps the work at most the product of both lengths.
    let (mut at, mut token, mut star) = (0, 0, None);
    while at < letters.len() {
        match tokens.get(token) {
            Some(Token::Any) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(each) if accepts(each, letters[at]) => {
                (at, token) = (at + 1, token + 1);
                continue;
            }
            _ => {}
        }
        let Some((star_token, star_at)) = star else { return false };
        star = Some((star_token, star_at + 1));
        (at, token) = (star_at + 1, star_token + 1);
    }
    tokens[token..].iter().all(|token| *token == Token::Any)
}

fn accepts(token: &Token, letter: char) -> bool {
    match token {
        Token::Is(wanted) => *wanted == letter,
        Token::One => true,
        Token::OneOf { ranges, not } => ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *not,
        Token::Any => unreachable!("stars are taken by `fits`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_fits(pattern: &str, name: &str) -> bool {
        match component(pattern).unwrap() {
            Component::Wild(tokens) => fits(&tokens, name),
            Component::Name(wanted) => wanted == name,
            Component::Folders => true,
        }
    }

    #[test]
    fn wildcards_fit_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.log", "a.log", true),
            ("*.log", ".log", false),
            (".*", ".log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("???", "äöü", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[*]x", "*x", true),
            ("app[-.]1", "app-1", true),
            ("*", "", true),
        ] {
            assert_eq!(name_fits(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        assert!(!name_fits(&"*a".repeat(40), &"a".repeat(39).repeat(20).replace("aaaa", "b")));
    }

    #[test]
    fn the_base_is_what_comes_before_the_first_wildcard() {
        for (text, base, rest) in
            [("logs/*.log", "logs", 1), ("/var/log/*/x", "/var/log", 2), ("./a.log", "", 1), ("../x/**/y", "../x", 2)]
        {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!((pattern.base(), pattern.components().len()), (base, rest), "{text}");
        }
    }

    #[test]
    fn patterns_that_can_match_no_file_are_refused() {
        for text in ["", "logs/", "logs/**", "logs/[ab", "/", ".."] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
