package bastion

// Kinds of notices.
const (
	noticeBreakGlass = "break_glass" // an identity was opened, used or closed; fields are a breakGlassRecord
	noticeStatement  = "statement"   // a statement was refused; fields are a statementRecord
	noticeWitness    = "witness"     // a witness rejects the audit log; fields are a witnessRecord
)

// notify tells whoever listens for alerts. The listener does not block: what it is told is in the audit log anyway.
func (s *Server) notify(kind string, fields any) {
	if s.events != nil {
		s.events(kind, fields)
	}
}
