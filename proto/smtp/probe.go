package smtp

// Probe queues an envelope that no content follows, to learn what the server says to a recipient: MAIL with the null reverse-path, and RCPT.
// ClientMail and ClientRcpt tell, and ClientDataRefused ends it, whatever they said. It asks for what Begin asks for, and for a session without
// a transaction under way. rcpt must not change until then.
func (c *Client) Probe(rcpt string) error {
	if !c.CanBegin() || c.count > 0 {
		return ErrNotReady
	}
	utf8 := false
	for i := range len(rcpt) {
		utf8 = utf8 || rcpt[i] >= 0x80
	}
	if utf8 && !c.ext.Has(ExtSMTPUTF8) {
		return ErrNeedsSMTPUTF8
	}
	return c.begin(clientTransaction{params: MailParams{SMTPUTF8: utf8}, rcpts: []string{rcpt}, probe: true})
}
