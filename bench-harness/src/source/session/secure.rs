//! The steps that lead into TLS, for plans that want it: before the greeting, or by STARTTLS after EHLO.

use super::super::start::End;
use super::super::waiting::Waiting;
use super::{Session, Want};
use crate::outcome::Stage;
use crate::plan::Way;

impl Session {
    /// The handshake of a connection that was just opened, where the plan wants it this way.
    pub(super) async fn implicit_tls(&mut self) -> Result<(), End> {
        match self.way() {
            Some(Way::Implicit) => self.handshake().await,
            _ => Ok(()),
        }
    }

    fn way(&self) -> Option<Way> {
        self.stream.process.tls.as_ref().map(|tls| tls.way)
    }

    /// EHLO and TLS, where the plan wants it this way. What is offered in TLS is asked for again.
    pub async fn starttls(&mut self) -> Result<(), End> {
        if self.way() != Some(Way::Starttls) {
            return Ok(());
        }
        self.say_ehlo().await?;
        self.ehlo_reply().await?;
        self.upgrade().await
    }

    /// STARTTLS to a server that has said what it offers.
    async fn upgrade(&mut self) -> Result<(), End> {
        if !self.offers.starttls {
            return Err(End::NotOffered("STARTTLS"));
        }
        self.say(b"STARTTLS\r\n").await?;
        self.expect(Stage::Starttls, Want::Done).await?;
        self.handshake().await
    }

    /// For who has said EHLO already.
    pub async fn starttls_after_ehlo(&mut self) -> Result<(), End> {
        if self.way() != Some(Way::Starttls) {
            return Ok(());
        }
        self.upgrade().await?;
        self.say_ehlo().await?;
        self.ehlo_reply().await
    }

    async fn handshake(&mut self) -> Result<(), End> {
        let waiting = Waiting::new(&self.stream, Stage::Handshake, self.since);
        let secured = self.connection.secure().await;
        waiting.over(secured.as_ref().err());
        secured?;
        self.mark(Stage::Handshake);
        Ok(())
    }
}
