package agent

import (
	"os"
	"testing"
)

// childVariable has the test program be something else.
const childVariable = "MAYFLY_AGENT_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "terminal":
		terminalChild()
	case "activated":
		activatedChild()
	}
	os.Exit(m.Run())
}
