package agent

import (
	"errors"
)

// Extension is the name of our own extension, by which a client asks why the agent refused its last request: the protocol's failure says nothing.
const Extension = extensionWhy

// ParseWhy reads the answer to Extension, as an ssh-agent client hands it on: reason, sentence and hint, all empty where the last request was done.
func ParseWhy(answer []byte) (reason Reason, text, hint string, err error) {
	r := reader{data: answer}
	if r.byte("message") != msgSuccess && r.err == nil {
		return "", "", "", errors.New("not an answer of this agent")
	}
	word, sentence, mend := r.string("reason", 64), r.string("text", maxMessage), r.string("hint", maxMessage)
	if err := r.end(); err != nil {
		return "", "", "", err
	}
	return Reason(word), string(sentence), string(mend), nil
}
