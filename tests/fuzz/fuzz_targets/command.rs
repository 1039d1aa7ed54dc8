//! Any bytes are lines, any line is a command or a named violation, and what is passed on is the line's own bytes.
//! The first byte says what was announced.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::command::{self, Command};
use weir_smtp::extension::ExtensionSet;
use weir_smtp::line::split_line;
use weir_smtp::param;
use weir_smtp::path::Path;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, mut input)) = data.split_first() else {
        return;
    };
    let mut announced = ExtensionSet::OWN;
    for (bit, set) in [
        (1, ExtensionSet::EIGHTBITMIME),
        (2, ExtensionSet::SMTPUTF8),
        (4, ExtensionSet::DSN),
        (8, ExtensionSet::BINARYMIME),
    ] {
        if choice & bit == 0 {
            announced.insert(set);
        }
    }
    let esmtp = choice & 16 == 0;
    while let Some((len, taken, _)) = split_line(input) {
        assert!(len < taken && taken <= input.len());
        line(&input[..len], announced, esmtp);
        input = &input[taken..];
    }
    line(input, announced, esmtp);
});

fn line(line: &[u8], announced: ExtensionSet, esmtp: bool) {
    match command::parse(line, announced, esmtp) {
        Ok(Command::Mail(mail)) => {
            assert!(
                announced.contains(mail.uses),
                "only what was announced is used"
            );
            argument(line, mail.argument, &mail.path, mail.params);
            assert!(mail.path.is_ascii() || mail.smtputf8);
        }
        Ok(Command::Rcpt(rcpt)) => {
            assert!(
                announced.contains(rcpt.uses),
                "only what was announced is used"
            );
            argument(line, rcpt.argument, &rcpt.path, rcpt.params);
            assert!(!rcpt.path.null);
        }
        Ok(_) => {}
        Err(violation) => assert!(violation.reply().code() >= 400 && !violation.word().is_empty()),
    }
}

fn argument(line: &[u8], argument: &[u8], path: &Path<'_>, params: &[u8]) {
    assert!(
        line.windows(argument.len())
            .any(|window| window == argument),
        "verbatim"
    );
    assert_eq!([path.whole, params].concat(), argument);
    assert!(
        !argument.iter().any(|byte| b"\0\r\n".contains(byte)),
        "nothing that ends a line upstream"
    );
    assert!(path.whole.starts_with(b"<") && path.whole.ends_with(b">"));
    let kept: usize = param::without(params, "SIZE").map(<[u8]>::len).sum();
    assert!(kept <= params.len());
}
