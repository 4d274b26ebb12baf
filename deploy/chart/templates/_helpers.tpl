{{- define "slipstream.selector" -}}
app.kubernetes.io/name: slipstream
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipstream.labels" -}}
{{ include "slipstream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "slipstream.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "slipstream.config" -}}
apiVersion: slipstream/v1alpha1
kind: Configuration
listen: node:{{ .Values.port }}
{{- $config := deepCopy .Values.config }}
{{- if .Values.cleanup }}{{ $_ := set $config "enabled" false }}{{ end }}
{{- if $config }}
{{ toYaml $config }}
{{- end }}
{{- end }}

{{- define "slipstream.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
  add: [NET_ADMIN]
privileged: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
{{- end }}
