{{/* What pods may reach. */}}

{{- define "slm-swarm.egressBase" -}}
- ports:
    {{- range .dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* Of those that follow the API server. */}}
{{- define "slm-swarm.egressApi" -}}
{{ include "slm-swarm.egressBase" . }}
- ports:
    {{- range .apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .apiServerTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Of those that speak to workers, too. */}}
{{- define "slm-swarm.egressControl" -}}
{{ include "slm-swarm.egressApi" .policy }}
- to:
    - podSelector:
        matchLabels:
          {{- .worker | nindent 10 }}
  ports:
    - {port: 9090, protocol: TCP}
{{- end }}
