package bastion

import (
	"time"

	"mayfly/policies"
	"mayfly/policies/statement"
)

// What happened to a break-glass identity.
const (
	glassOpened = "opened"
	glassClosed = "closed"
	glassLogin  = "login"
	glassTarget = "target"
)

// breakGlassRecord is written when an identity opens, is used, and closes. Each is logged as an error as well: somebody has to ask why.
type breakGlassRecord struct {
	What       string    `json:"what"`
	Name       string    `json:"name"`
	Opening    string    `json:"opening"`
	Expires    time.Time `json:"expires,omitzero"`
	By         []string  `json:"by,omitempty"`   // who signed the opening
	Text       string    `json:"text,omitempty"` // their reason
	Connection string    `json:"connection,omitempty"`
	Source     string    `json:"source,omitempty"`
	Server     string    `json:"server,omitempty"`
	Port       uint16    `json:"port,omitempty"`
}

// glass tells which identities have been opened and closed since the last time. It belongs to the goroutine that watches statements.
func (s *Server) glass(r *ruling, now time.Time) {
	open := r.bundle.Policy.Opened(r.statements, now)
	for name, o := range s.open {
		if open[name].ID != o.ID {
			s.brokenGlass(breakGlassRecord{What: glassClosed, Name: name, Opening: o.ID})
		}
	}
	for name, o := range open {
		if s.open[name].ID != o.ID {
			record := breakGlassRecord{What: glassOpened, Name: name, Opening: o.ID, Expires: o.Expires}
			for _, f := range s.statements.files {
				if _, ok := f.opened.Statement.(statement.BreakGlass); ok && f.record.ID == o.ID {
					record.By, record.Text = f.record.By, f.record.Text
				}
			}
			s.brokenGlass(record)
		}
	}
	s.open = open
}

func (s *Server) brokenGlass(r breakGlassRecord) {
	s.log.Error("break-glass", "what", r.What, "name", r.Name, "opening", r.Opening, "by", r.By, "text", r.Text,
		"connection", r.Connection, "source", r.Source, "server", r.Server)
	s.append(eventBreakGlass, r)
	s.notify(noticeBreakGlass, r)
}

// usesGlass tells of a login or a target of a break-glass identity, and is silent about anybody else's.
func (v *visit) usesGlass(what string, verdict policies.Verdict, target policies.Target) {
	if verdict.Kind == policies.KindBreakGlass {
		v.server.brokenGlass(breakGlassRecord{What: what, Name: v.login.User, Opening: verdict.Basis.Opening,
			Connection: v.id, Source: v.source.String(), Server: target.Server, Port: target.Port})
	}
}
