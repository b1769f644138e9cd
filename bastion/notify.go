package bastion

import (
	"fmt"
	"time"

	"mayfly/bastion/alert"
	"mayfly/bastion/reconcile"
	"mayfly/policies"
)

// Kinds of notices.
const (
	noticeBreakGlass = "break_glass"  // an identity was opened, used or closed; fields are a breakGlassRecord
	noticeStatement  = "statement"    // a statement was refused; fields are a statementRecord
	noticeWitness    = "witness"      // a witness rejects the audit log; fields are a witnessRecord
	noticeFresh      = "fresh"        // witnesses do not confirm the policy; fields are a freshRecord
	noticePolicy     = "policy"       // changed files were refused, or the policy has expired; fields are a policyRecord
	noticePlugin     = "plugin"       // a plugin failed or was late; fields are a pluginNotice
	noticePlugins    = "plugins"      // the plugins' host has ended; fields are a pluginsRecord
	noticeAuditIll   = "audit_ill"    // fields are a text
	noticeAuditWell  = "audit_well"   // fields are a text
	noticeLogin      = "login"        // a login without a record; fields are an UnrecordedLogin
	noticeRepeated   = "repeated"     // refusals; fields are a repeatedNotice
	noticeNetwork    = "new_network"  // fields are a networkNotice
	noticeNetworks   = "two_networks" // fields are a networkNotice
)

// pluginNotice is a plugin that did not decide.
type pluginNotice struct {
	plugin, connection string
	verdict            policies.Verdict
}

// repeatedNotice is refusals of one source, or of one user's name.
type repeatedNotice struct {
	subject string
	count   int
	within  time.Duration
	last    policies.Reason
}

// networkNotice is an engineer who came from a network.
type networkNotice struct {
	user, connection string
	network, other   string
}

// UnrecordedLogin is a login on a server that the bastion did not record, as "bastion audit reconcile" found it.
type UnrecordedLogin struct {
	User   string    `json:"user"`
	Server string    `json:"server"`
	Time   time.Time `json:"time"`
	Peer   string    `json:"peer"` // where the server saw it come from
	Key    string    `json:"key"`
	Why    string    `json:"why"`
	All    int       `json:"all"` // how many were found with it
}

// maxLoginsTold bounds how many of the logins found together are told of; each says how many there were.
const maxLoginsTold = 16

// noticeOfLogin is what a bastion is told of an unrecorded login.
func noticeOfLogin(u reconcile.Unrecorded, all int) *UnrecordedLogin {
	n := &UnrecordedLogin{User: escape(u.User, maxText), Server: escape(u.Server, maxText), Time: u.Time.UTC(), Key: escape(u.Key, maxText), Why: escape(u.Why, maxText), All: all}
	if u.Peer.IsValid() {
		n.Peer = u.Peer.String()
	}
	return n
}

// notify tells whoever listens for alerts. It does not block: what it tells is in the audit log, or logged, anyway.
func (s *Server) notify(kind string, fields any) {
	if s.events != nil {
		s.events(kind, fields)
	}
	if s.alerts == nil {
		return
	}
	if a := alertOf(fields, kind); a.Kind != "" {
		s.raise(a, time.Now())
	}
}

// alertOf is what an alert says of a notice: kind, subject, detail and reference.
func alertOf(fields any, kind string) alert.Alert {
	switch f := fields.(type) {
	case breakGlassRecord:
		a := alert.Alert{Kind: alert.BreakGlass, Subject: fmt.Sprintf("%s %s %s", f.Name, f.What, f.Opening), Reference: f.Opening}
		switch {
		case f.Server != "":
			a.Subject, a.Reference = fmt.Sprintf("%s %s %s:%d %s", f.Name, f.What, f.Server, f.Port, f.Connection), f.Connection
		case f.Connection != "":
			a.Subject, a.Reference = fmt.Sprintf("%s %s %s", f.Name, f.What, f.Connection), f.Connection
		}
		a.Detail = fmt.Sprintf("signed by %v; %s", f.By, f.Text)
		if f.Connection != "" {
			a.Detail = fmt.Sprintf("from %s by opening %s", f.Source, f.Opening)
		}
		return a
	case statementRecord:
		return alert.Alert{Kind: alert.StatementRefused, Subject: f.File, Detail: fmt.Sprintf("%s: %s", f.Reason, f.Detail), Reference: f.ID}
	case witnessRecord:
		return alert.Alert{Kind: alert.WitnessRejects, Subject: f.Witness, Detail: fmt.Sprintf("rejects a checkpoint of %d records, has seen %d: %s", f.Size, f.Seen, f.Detail)}
	case freshRecord:
		return alert.Alert{Kind: alert.PolicyUnconfirmed, Subject: fmt.Sprintf("policy %d", f.Version),
			Detail: fmt.Sprintf("%s: sessions begin until %s; %s", f.Outcome, f.Until.Format(time.RFC3339), f.Detail)}
	case policyRecord:
		return alert.Alert{Kind: alert.PolicyRefused, Subject: "policy or host certificate", Detail: fmt.Sprintf("policy %d stays in force: %s", f.Version, f.Detail)}
	case pluginNotice:
		return alert.Alert{Kind: alert.PluginFailed, Subject: f.plugin, Detail: fmt.Sprintf("%s: %s", f.verdict.Reason, f.verdict.Detail), Reference: f.connection}
	case pluginsRecord:
		return alert.Alert{Kind: alert.PluginFailed, Subject: "bastion-plugins", Detail: "it has ended: what plugins decide is denied until the bastion is started again"}
	case UnrecordedLogin:
		return alert.Alert{Kind: alert.UnrecordedLogin, Subject: fmt.Sprintf("%s on %s at %s", f.User, f.Server, f.Time.UTC().Format(time.RFC3339)),
			Detail: fmt.Sprintf("%s: from %s with key %s; %d such logins were found together", f.Why, f.Peer, f.Key, f.All)}
	case repeatedNotice:
		return alert.Alert{Kind: alert.RepeatedRefusals, Subject: f.subject, Detail: fmt.Sprintf("%d refusals within %s, the last: %s", f.count, f.within, f.last)}
	case networkNotice:
		if kind == noticeNetworks {
			return alert.Alert{Kind: alert.TwoNetworks, Subject: f.user, Detail: fmt.Sprintf("is in from %s and from %s", f.network, f.other), Reference: f.connection}
		}
		return alert.Alert{Kind: alert.NewNetwork, Subject: f.user + " from " + f.network, Detail: "has not logged in from there before", Reference: f.connection}
	case string:
		if kind == noticeAuditWell {
			return alert.Alert{Kind: alert.AuditRecovered, Subject: "audit log", Detail: f}
		}
		return alert.Alert{Kind: alert.AuditIll, Subject: "audit log", Detail: f}
	}
	return alert.Alert{}
}
