{{- define "polycast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "polycast.fullname" -}}
{{- $name := include "polycast.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "polycast.selector" -}}
app.kubernetes.io/name: {{ include "polycast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "polycast.labels" -}}
{{ include "polycast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "polycast.secret" -}}
{{- .Values.app.existingSecret | default (include "polycast.fullname" .) -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "polycast.config" -}}
{{- if .Values.config -}}
{{ .Values.config }}
{{- else -}}
threads = {{ .Values.threads | int }}
lame_duck_s = {{ .Values.lameDuckSeconds | int }}
drain_s = {{ .Values.drainSeconds | int }}

[log]
format = "json"

[[listeners]]
address = "{{ .Values.address }}:6001"
{{- if .Values.tls.existingSecret }}
[[listeners.tls.certificates]]
cert = "/etc/polycast-tls/tls.crt"
key = "/etc/polycast-tls/tls.key"
{{- end }}

[[apps]]
id = "${POLYCAST_APP_ID}"
key = "${POLYCAST_APP_KEY}"
secret = "${POLYCAST_APP_SECRET}"
{{- with .Values.extraConfig }}

{{ . }}
{{- end }}
{{- end -}}
{{- end -}}
