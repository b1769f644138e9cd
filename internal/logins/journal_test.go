package logins

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func entry(fields string) string {
	return `{"__REALTIME_TIMESTAMP":"1893456000000001","_HOSTNAME":"Web-1.office.internal",` + fields + "}\n"
}

func TestReadJournal(t *testing.T) {
	line := "Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-SK " + print
	var bytes []string
	for _, b := range []byte(line) {
		bytes = append(bytes, fmt.Sprint(b))
	}
	text := entry(`"_UID":"0","_COMM":"sshd","MESSAGE":"`+line+`"`) +
		"\n" +
		entry(`"_UID":"0","_COMM":"sshd-session","MESSAGE":[`+strings.Join(bytes, ",")+`]`) +
		entry(`"SYSLOG_IDENTIFIER":"sshd","MESSAGE":"`+line+`"`) +
		entry(`"_UID":"0","_COMM":"sshd","MESSAGE":"Accepted odd"`) +
		// What counts for nothing: another user's words, another program's, other lines.
		entry(`"_UID":"1000","_COMM":"logger","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"`+line+`"`) +
		entry(`"_UID":"1000","_COMM":"sshd","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"`+line+`"`) +
		entry(`"_UID":"0","_COMM":"cron","SYSLOG_IDENTIFIER":"sshd","MESSAGE":"`+line+`"`) +
		entry(`"_UID":"0","_COMM":"sshd","MESSAGE":"Server listening on 0.0.0.0 port 22."`) +
		entry(`"_UID":"0","_COMM":"sshd","MESSAGE":null`)
	list, err := ReadJournal(strings.NewReader(text), "")
	if err != nil || len(list) != 4 {
		t.Fatalf("got %d: %+v, %v", len(list), list, err)
	}
	for i, r := range list[:3] {
		if r.Server != "web-1" || r.User != "alice" || r.Key != print || !r.Time.Equal(time.UnixMicro(1893456000000001)) {
			t.Errorf("login %d: %+v", i, r)
		}
	}
	if list[3].Unread != `"Accepted odd"` {
		t.Errorf("a line that cannot be read: %+v", list[3])
	}
	if list, err := ReadJournal(strings.NewReader(text), "db-1"); err != nil || list[0].Server != "db-1" {
		t.Errorf("of a named host: %+v, %v", list, err)
	}
	for _, bad := range []string{
		"Nov 20 12:00:00 web-1 sshd[1]: " + line, "[]\n", `{"_COMM":"sshd","MESSAGE":"` + line + `"}`,
		`{"_COMM":"sshd","__REALTIME_TIMESTAMP":"-1","_HOSTNAME":"x","MESSAGE":"` + line + `"}`,
		`{"_COMM":"sshd","__REALTIME_TIMESTAMP":"1","MESSAGE":"` + line + `"}`,
		`{"_COMM":"sshd","MESSAGE":{"x":1}}`, `{"_COMM":"sshd","MESSAGE":[256]}`, `{"x":"` + strings.Repeat("x", maxJournalLine) + `"}`,
	} {
		if list, err := ReadJournal(strings.NewReader(bad), ""); err == nil {
			t.Errorf("%.60q: got %+v", bad, list)
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	f.Add(entry(`"_UID":"0","_COMM":"sshd","MESSAGE":"Accepted publickey for alice from 10.77.0.2 port 40123 ssh2: ED25519-SK ` + print + `"`))
	f.Add(entry(`"_COMM":"sshd","MESSAGE":[65,99]`))
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ReadJournal(strings.NewReader(text), "")
		if err != nil && list != nil {
			t.Fatal("a list and an error")
		}
		for _, r := range list {
			if r.Server == "" || r.Time.IsZero() || (r.Unread == "") == (r.User == "") {
				t.Fatalf("got %+v", r)
			}
		}
	})
}
