//! The documents of a file, one by one: only the current one is in memory.

use std::io::{BufRead, Read};

use super::detect::Layout;

/// A document and its number in the file, from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// For a line, its line number.
    pub number: u64,
    /// Its bytes, without white space around them; those of one that is too long are cut.
    pub bytes: Vec<u8>,
    /// Whether it is longer than the limit.
    pub is_too_long: bool,
}

/// Reads documents.
pub struct Documents<R> {
    reader: R,
    bytes_max: usize,
    number: u64,
    blank_lines: u64,
    /// `None` if each line is a document.
    splitter: Option<Splitter>,
}

impl<R: BufRead> Documents<R> {
    /// Documents of a layout, each at most `bytes_max` long.
    pub fn new(reader: R, layout: Layout, bytes_max: usize) -> Self {
        let splitter = match layout {
            Layout::LambdaEvent | Layout::Lines => None,
            Layout::Array => Some(Splitter::new(true)),
            Layout::Concatenated => Some(Splitter::new(false)),
        };
        Self { reader, bytes_max, number: 0, blank_lines: 0, splitter }
    }

    /// Lines without a document so far.
    pub fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// Whether the file ends within its array or its last document.
    pub fn is_truncated(&self) -> bool {
        self.splitter.as_ref().is_some_and(Splitter::is_open)
    }

    /// The next document; `None` at the end of the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not valid gzip.
    pub fn next_document(&mut self) -> std::io::Result<Option<Document>> {
        if self.splitter.is_some() { self.next_value() } else { self.next_line() }
    }

    fn next_line(&mut self) -> std::io::Result<Option<Document>> {
        loop {
            let mut bytes = Vec::new();
            // One byte beyond the limit, and the line's end.
            let limit = self.bytes_max as u64 + 3;
            if self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let is_cut = bytes.len() as u64 == limit && bytes.last() != Some(&b'\n');
            if is_cut {
                self.reader.skip_until(b'\n')?;
            }
            self.number += 1;
            if bytes.trim_ascii().is_empty() && !is_cut {
                self.blank_lines += 1;
                continue;
            }
            return Ok(Some(self.document(bytes, is_cut)));
        }
    }

    fn next_value(&mut self) -> std::io::Result<Option<Document>> {
        let (mut bytes, mut is_cut) = (Vec::new(), false);
        while let Some(byte) = self.next_byte()? {
            let Some(splitter) = &mut self.splitter else { break };
            let step = splitter.step(byte);
            match step {
                ByteStep::Skip => continue,
                ByteStep::Take | ByteStep::TakeAndEnd if bytes.len() <= self.bytes_max => bytes.push(byte),
                ByteStep::Take | ByteStep::TakeAndEnd => is_cut = true,
                ByteStep::End => {}
            }
            if matches!(step, ByteStep::End | ByteStep::TakeAndEnd) && !bytes.trim_ascii().is_empty() {
                break;
            }
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(self.document(bytes, is_cut)))
    }

    fn next_byte(&mut self) -> std::io::Result<Option<u8>> {
        let byte = self.reader.fill_buf()?.first().copied();
        self.reader.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    fn document(&self, bytes: Vec<u8>, is_cut: bool) -> Document {
        let bytes = bytes.trim_ascii().to_vec();
        Document { number: self.number, is_too_long: is_cut || bytes.len() > self.bytes_max, bytes }
    }
}

/// Finds the end of a value by its brackets and strings; does not check that it is valid JSON.
#[derive(Debug)]
struct Splitter {
    /// Whether the values are elements of arrays.
    in_arrays: bool,
    is_inside_array: bool,
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ByteStep {
    /// The byte is between values.
    Skip,
    /// The byte belongs to the value.
    Take,
    /// The byte is the last of the value.
    TakeAndEnd,
    /// The value ended before the byte, which is between values.
    End,
}

impl Splitter {
    fn new(in_arrays: bool) -> Self {
        Self { in_arrays, is_inside_array: false, depth: 0, is_in_string: false, is_escaped: false }
    }

    fn is_open(&self) -> bool {
        self.is_inside_array || self.depth > 0 || self.is_in_string
    }

    fn step(&mut self, byte: u8) -> ByteStep {
        if self.is_in_string {
            self.is_in_string = byte != b'"' || self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            return ByteStep::Take;
        }
        if self.depth == 0 {
            return self.step_between(byte);
        }
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 && !self.in_arrays { ByteStep::TakeAndEnd } else { ByteStep::Take }
    }

    /// Outside all values, or in one that is not an object, array or string.
    fn step_between(&mut self, byte: u8) -> ByteStep {
        match byte {
            b'[' if self.in_arrays && !self.is_inside_array => {
                self.is_inside_array = true;
                return ByteStep::Skip;
            }
            b']' if self.is_inside_array => {
                self.is_inside_array = false;
                return ByteStep::End;
            }
            b',' if self.is_inside_array => return ByteStep::End,
            b'\n' if !self.is_inside_array => return ByteStep::End,
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth = 1,
            _ => {}
        }
        ByteStep::Take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(layout: Layout, text: &str) -> Vec<(u64, String)> {
        let mut documents = Documents::new(text.as_bytes(), layout, 20);
        let mut found = Vec::new();
        while let Some(document) = documents.next_document().unwrap() {
            let text =
                if document.is_too_long { "(too long)".into() } else { String::from_utf8(document.bytes).unwrap() };
            found.push((document.number, text));
        }
        found
    }

    fn numbered(texts: &[&str]) -> Vec<(u64, String)> {
        (1..).zip(texts.iter().map(|text| (*text).to_owned())).collect()
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "{\"a\":1}\r\n\r\n  \n{\"a\":2}\noops\n\n{\"a\":3}";
        let expected = [(1, "{\"a\":1}"), (4, "{\"a\":2}"), (5, "oops"), (7, "{\"a\":3}")];
        assert_eq!(documents(Layout::Lines, text), expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn a_long_line_costs_no_memory_and_no_neighbour() {
        let long = format!("\"{}\"", "x".repeat(1_000));
        let text = format!("{long}\n\"{}\"\r\n\"{}\"\n{long}", "x".repeat(18), "x".repeat(19));
        let fits = format!("\"{}\"", "x".repeat(18));
        let expected = numbered(&["(too long)", &fits, "(too long)", "(too long)"]);
        assert_eq!(documents(Layout::Lines, &text), expected);
        let mut reader = Documents::new(long.as_bytes(), Layout::Lines, 20);
        assert!(reader.next_document().unwrap().unwrap().bytes.len() < 30);
    }

    #[test]
    fn elements_are_parted_by_commas_outside_of_values() {
        let text = "[ {\"a\":[1,2]},\n\n {\"]\":\"\\\\\\\",]\"} , 7, \"x,y\",\n[{}]\n]\n";
        let expected = numbered(&["{\"a\":[1,2]}", "{\"]\":\"\\\\\\\",]\"}", "7", "\"x,y\"", "[{}]"]);
        assert_eq!(documents(Layout::Array, text), expected);
        assert_eq!(documents(Layout::Array, "[]"), []);
        assert_eq!(documents(Layout::Array, "[{}]\n[{ }]x"), numbered(&["{}", "{ }", "x"]));
        let long = format!("[{{\"a\":\"{}\"}},{{}}]", "x".repeat(99));
        assert_eq!(documents(Layout::Array, &long), numbered(&["(too long)", "{}"]));
    }

    #[test]
    fn a_bad_element_does_not_take_its_neighbours() {
        assert_eq!(documents(Layout::Array, "[{\"a\":]},{}]"), numbered(&["{\"a\":]}", "{}"]));
        assert_eq!(documents(Layout::Array, "[{},oops,,{ }]"), numbered(&["{}", "oops", "{ }"]));
    }

    #[test]
    fn documents_over_several_lines_end_with_their_bracket() {
        let text = "{\n \"a\": 1\n}\n{\n \"a\": {}\n}{}\noops\n{}";
        let expected = numbered(&["{\n \"a\": 1\n}", "{\n \"a\": {}\n}", "{}", "oops", "{}"]);
        assert_eq!(documents(Layout::Concatenated, text), expected);
    }

    #[test]
    fn a_file_that_ends_early_is_noticed() {
        for (layout, text, expected) in [
            (Layout::Array, "[{},{}", true),
            (Layout::Array, "[{},{}]", false),
            (Layout::Concatenated, "{\n\"a\":\"}\n", true),
            (Layout::Concatenated, "{\n}\n", false),
            (Layout::Lines, "{}\n{", false),
        ] {
            let mut documents = Documents::new(text.as_bytes(), layout, 20);
            while documents.next_document().unwrap().is_some() {}
            assert_eq!(documents.is_truncated(), expected, "{text}");
        }
    }
}
