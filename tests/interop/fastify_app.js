// A Fastify application with one encrypted session for each set of options in $SESSIONS: keys in hex.
'use strict'

const fastify = require('fastify')()
const hex = (text) => Buffer.from(text, 'hex')

const sessions = JSON.parse(process.env.SESSIONS).map((options) => ({
  ...options,
  ...(options.key && { key: options.key.map(hex) }),
  ...(options.salt && { salt: hex(options.salt) })
}))

fastify.register(require('@fastify/secure-session'), sessions)
fastify.get('/:name', (request) => request[request.params.name].data())
fastify.post('/:name/set', (request) => {
  const session = request[request.params.name]
  for (const [key, value] of Object.entries(request.body)) session.set(key, value)
  return session.data()
})
fastify.post('/:name/delete', (request) => {
  request[request.params.name].delete()
  return {}
})

fastify.listen({ port: 0, host: '127.0.0.1' }).then(() => {
  console.log(`listening ${fastify.server.address().port}`)
})
